"""Requests at the edges of HTTP/1.1, as bytes, with what a strict server answers: the statuses, in order.

Each case is followed on the wire by `LAST`, which asks for the end of the connection: it is answered where the case was
read as a server should, and swallowed or missing where it was read otherwise.
"""

from __future__ import annotations

LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"

_CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


def _post(fields: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST /x " + version + b"\r\nhost: a\r\n" + fields + b"\r\n" + body


def _get(line: bytes = b"GET /x HTTP/1.1", fields: bytes = b"host: a\r\n") -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def _chunked(body: bytes, fields: bytes = b"") -> bytes:
    return _post(b"transfer-encoding: chunked\r\n" + fields, body)


OK, BAD = (200, 200), (400,)

CASES: dict[str, tuple[bytes, tuple[int, ...]]] = {
    # the length of a body
    "length": (_post(b"content-length: 3\r\n", b"abc"), OK),
    "length with zeros": (_post(b"content-length: 003\r\n", b"abc"), OK),
    "length and spaces behind": (_post(b"content-length: 3 \t \r\n", b"abc"), OK),
    "length behind a tab": (_post(b"content-length:\t3\r\n", b"abc"), OK),
    "length without a space": (_post(b"Content-Length:3\r\n", b"abc"), OK),
    "length twice": (_post(b"content-length: 3\r\ncontent-length: 3\r\n", b"abc"), BAD),
    "two lengths": (_post(b"content-length: 3\r\ncontent-length: 4\r\n", b"abcd"), BAD),
    "length in a list": (_post(b"content-length: 3, 3\r\n", b"abc"), BAD),
    "length with a sign": (_post(b"content-length: +3\r\n", b"abc"), BAD),
    "negative length": (_post(b"content-length: -3\r\n", b"abc"), BAD),
    "length in hex": (_post(b"content-length: 0x3\r\n", b"abc"), BAD),
    "length of two numbers": (_post(b"content-length: 3 4\r\n", b"abc"), BAD),
    "length of nothing": (_post(b"content-length:\r\n"), BAD),
    "length with an underscore": (_post(b"content-length: 1_0\r\n", b"0123456789"), BAD),
    "length in other digits": (_post("content-length: \u0663\r\n".encode(), b"abc"), BAD),
    "length over 64 bits": (_post(b"content-length: 18446744073709551619\r\n", b"abc"), (413,)),
    "space before the colon": (_post(b"content-length : 3\r\n", b"abc"), BAD),
    "length in HTTP/1.0": (_post(b"content-length: 3\r\n", b"abc", b"HTTP/1.0"), (200,)),
    "body of a GET": (_get(fields=b"host: a\r\ncontent-length: 3\r\n") + b"abc", OK),
    # transfer codings
    "chunked": (_chunked(_CHUNKS), OK),
    "Chunked": (_post(b"Transfer-Encoding:  Chunked \r\n", _CHUNKS), OK),
    "chunked and length": (_chunked(_CHUNKS, b"content-length: 3\r\n"), BAD),
    "length and chunked": (_post(b"content-length: 3\r\ntransfer-encoding: chunked\r\n", _CHUNKS), BAD),
    "chunked in HTTP/1.0": (_post(b"transfer-encoding: chunked\r\n", _CHUNKS, b"HTTP/1.0"), BAD),
    "gzip, chunked": (_post(b"transfer-encoding: gzip, chunked\r\n", _CHUNKS), (501,)),
    "chunked, gzip": (_post(b"transfer-encoding: chunked, gzip\r\n", _CHUNKS), (501,)),
    "chunked twice": (_chunked(_CHUNKS, b"transfer-encoding: chunked\r\n"), (501,)),
    "other then chunked": (_post(b"transfer-encoding: x\r\ntransfer-encoding: chunked\r\n", _CHUNKS), (501,)),
    "empty then chunked": (_post(b"transfer-encoding: ,chunked\r\n", _CHUNKS), (501,)),
    "identity": (_post(b"transfer-encoding: identity\r\n"), (501,)),
    "quoted chunked": (_post(b'transfer-encoding: "chunked"\r\n', _CHUNKS), (501,)),
    "chunked with a parameter": (_post(b"transfer-encoding: chunked;a=b\r\n", _CHUNKS), (501,)),
    "vertical tab and chunked": (_post(b"transfer-encoding: \x0bchunked\r\n", _CHUNKS), BAD),
    "folded coding": (_post(b"transfer-encoding:\r\n chunked\r\n", _CHUNKS), BAD),
    # chunks
    "chunk with an extension": (_chunked(b'3;a="b;c"\r\nabc\r\n0\r\n\r\n'), OK),
    "chunk with zeros": (_chunked(b"0" * 40 + b"3\r\nabc\r\n00\r\n\r\n"), OK),
    "chunk and a space": (_chunked(b"3 \r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk behind a space": (_chunked(b" 3\r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk in hex": (_chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk with a sign": (_chunked(b"+3\r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk over 64 bits": (_chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), BAD),
    "chunk ended by LF": (_chunked(b"3\nabc\r\n0\r\n\r\n"), BAD),
    "data ended by LF": (_chunked(b"3\r\nabc\n0\r\n\r\n"), BAD),
    "chunk longer than said": (_chunked(b"3\r\nabcd\r\n0\r\n\r\n"), BAD),
    "extension ended by LF": (_chunked(b"3;a\nabc\r\n0\r\n\r\n"), BAD),
    "extension with a CR": (_chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), BAD),
    "no size": (_chunked(b"\r\nabc\r\n0\r\n\r\n"), BAD),
    "trailer": (_chunked(b"3\r\nabc\r\n0\r\nx: y\r\n\r\n"), OK),
    "trailer with a length": (_chunked(b"3\r\nabc\r\n0\r\ncontent-length: 30\r\n\r\n"), BAD),
    "trailer that is none": (_chunked(b"3\r\nabc\r\n0\r\nx\r\n\r\n"), BAD),
    "end with LF": (_chunked(b"3\r\nabc\r\n0\r\n\n"), BAD),
    # lines and fields
    "LF only": (b"GET /x HTTP/1.1\nhost: a\n\n", BAD),
    "LF behind a field": (b"GET /x HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", BAD),
    "CR only": (b"GET /x HTTP/1.1\rhost: a\r\r", BAD),
    "CR in a value": (_get(fields=b"host: a\r\nx: a\rb\r\n"), BAD),
    "NUL in a value": (_get(fields=b"host: a\r\nx: a\0b\r\n"), BAD),
    "control byte in a value": (_get(fields=b"host: a\r\nx: a\1b\r\n"), BAD),
    "high bytes in a value": (_get(fields=b"host: a\r\nx: \xff\r\n"), OK),
    "empty value": (_get(fields=b"x:\r\nhost: a\r\n"), OK),
    "folded line": (_get(fields=b"host: a\r\nx: a\r\n b\r\n"), BAD),
    "space before the first field": (_get(fields=b" host: a\r\n"), BAD),
    "no colon": (_get(fields=b"host: a\r\nx\r\n"), BAD),
    "no name": (_get(fields=b"host: a\r\n: y\r\n"), BAD),
    "name with a bracket": (_get(fields=b"host: a\r\nx(: y\r\n"), BAD),
    "name of other letters": (_get(fields="host: a\r\n\u00e9: y\r\n".encode()), BAD),
    "empty line before": (b"\r\n" + _get(), OK),
    "space before": (b" " + _get(), BAD),
    # request line
    "two spaces": (_get(b"GET  /x HTTP/1.1"), BAD),
    "tabs": (_get(b"GET\t/x\tHTTP/1.1"), BAD),
    "space in the path": (_get(b"GET /x y HTTP/1.1"), BAD),
    "space behind the version": (_get(b"GET /x HTTP/1.1 "), BAD),
    "letters beyond ASCII": (_get("GET /\u00e9 HTTP/1.1".encode()), BAD),
    "control byte in the path": (_get(b"GET /\1 HTTP/1.1"), BAD),
    "method nobody knows": (_get(b"FOO /x HTTP/1.1"), OK),
    "absolute form": (_get(b"GET http://a/x?q HTTP/1.1"), OK),
    "absolute form without a path": (_get(b"GET HTTP://a HTTP/1.1"), OK),
    "authority of a GET": (_get(b"GET a:80 HTTP/1.1"), BAD),
    "relative path": (_get(b"GET x HTTP/1.1"), BAD),
    "asterisk": (_get(b"OPTIONS * HTTP/1.1"), OK),
    "CONNECT": (_get(b"CONNECT a:80 HTTP/1.1"), (405,)),
    # versions
    "HTTP/1.0": (_get(b"GET /x HTTP/1.0", b""), (200,)),
    "HTTP/1.2": (_get(b"GET /x HTTP/1.2"), OK),
    "HTTP/2.0": (_get(b"GET /x HTTP/2.0"), (505,)),
    "HTTP/0.9": (_get(b"GET /x HTTP/0.9"), (505,)),
    "no version": (b"GET /x\r\n\r\n", (505,)),
    "no version, and fields": (b"POST /x\nhost: a\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx", BAD),
    "HTTP/1.10": (_get(b"GET /x HTTP/1.10"), BAD),
    "http/1.1": (_get(b"GET /x http/1.1"), BAD),
    "RTSP": (_get(b"DESCRIBE /x RTSP/1.0"), BAD),
    # Host, Connection, Upgrade
    "no Host": (_get(fields=b""), BAD),
    "two Hosts": (_get(fields=b"host: a\r\nhost: b\r\n"), BAD),
    "one Host twice": (_get(fields=b"host: a\r\nhost: a\r\n"), BAD),
    "empty Host": (_get(fields=b"host:\r\n"), OK),
    "Host of two words": (_get(fields=b"host: a b/@\r\n"), BAD),
    "Host of IPv6": (_get(fields=b"host: [::1]:80\r\n"), OK),
    "Host of IPv6 with a zone": (_get(fields=b"host: [fe80::1%25eth0]\r\n"), OK),
    "Host of half an address": (_get(fields=b"host: [::1\r\n"), BAD),
    "Host with two ports": (_get(fields=b"host: a:80:81\r\n"), BAD),
    "Host with a port of letters": (_get(fields=b"host: a:http\r\n"), BAD),
    "Host with an empty port": (_get(fields=b"host: a:\r\n"), OK),
    "close": (_get(fields=b"host: a\r\nconnection: x, Close\r\n"), (200,)),
    "keep-alive and close": (_get(fields=b"host: a\r\nconnection: keep-alive\r\nconnection: close\r\n"), (200,)),
    "upgrade without Connection": (_get(fields=b"host: a\r\nupgrade: x\r\n"), OK),
    "upgrade and length": (_post(b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n", b"abc"), OK),
    "upgrade and chunks": (_chunked(_CHUNKS, b"connection: upgrade\r\nupgrade: x\r\n"), OK),
    "Expect nobody knows": (_post(b"expect: x\r\ncontent-length: 3\r\n", b"abc"), OK),
    "three in one": (_get() + _post(b"content-length: 3\r\n", b"abc") + _chunked(_CHUNKS), (200, 200, 200, 200)),
    # sizes
    "path of 8 KiB": (_get(b"GET /" + b"a" * 8000 + b" HTTP/1.1"), OK),
    "path of 40 KiB": (_get(b"GET /" + b"a" * 40_000 + b" HTTP/1.1"), (414,)),
    "header of 40 KiB": (_get(fields=b"host: a\r\nx: " + b"a" * 40_000 + b"\r\n"), (431,)),
    "hundred headers": (_get(fields=b"host: a\r\n" + b"x: y\r\n" * 100), OK),
    "five thousand headers": (_get(fields=b"host: a\r\n" + b"x: \r\n" * 5000), (431,)),
}
