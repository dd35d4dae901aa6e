"""The head of an HTTP/1.1 request: from bytes in any pieces to a method, a path, fields and how long the body is.

Decisions about bytes only, no socket and no clock; bodies are `body_reader`'s. Whatever is cut where, the same bytes
give the same head or the same refusal: what can be said of a part is said in the order of the bytes. Stricter than a
server must be, because a proxy in front may read the same bytes otherwise: line ends are CRLF, no folded lines, one
Content-Length of digits or one Transfer-Encoding of `chunked`.

Sources: RFC 9112 (syntax, framing), RFC 9110 (fields, Host, Expect, Upgrade is ignored as its section 7.8 allows).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from edge_agent.http.messages import HttpError, RequestHead, too_large
from edge_contracts import limits

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_LINE: Final = re.compile(rb"(%b{1,32}) ([\x21-\x7e]+) ([A-Z]{1,8})/([0-9])\.([0-9])" % _TOKEN)
_VERSION_SO_FAR: Final = rb"(?: [A-Z]{0,8}(?:/[0-9]?\.?[0-9]?\r?)?)?"
_LINE_SO_FAR: Final = re.compile(rb"%b{0,32}(?: [\x21-\x7e]*(?:\r|%b))?" % (_TOKEN, _VERSION_SO_FAR))
_OLD_LINE: Final = re.compile(rb"%b{1,32} [\x21-\x7e]+" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n" % _TOKEN)
_LONE_LF: Final = re.compile(rb"(?<!\r)\n")
_ABSOLUTE: Final = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)
_ADDRESS: Final = rb"\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~%-]+)?\]"  # with the zone that some clients leave in
_HOST: Final = re.compile(rb"(?:%b|[A-Za-z0-9._~%%!$&'()*+;=-]*)(?::[0-9]*)?" % _ADDRESS)
_MAX_LINE: Final = limits.MAX_TARGET_BYTES + 64  # with the method and the version
_END: Final = b"\r\n\r\n"


class ParsedHead(NamedTuple):
    """A head and what follows from it: `length` of the body in bytes, None where it comes in chunks; `keep_alive`, as
    far as the client goes; `expects` an interim answer before it sends the body."""

    head: RequestHead
    length: int | None
    keep_alive: bool
    expects: bool


class HeadReader:
    """Collects one head after the other."""

    __slots__ = ("_line_end", "_searched", "held")

    def __init__(self) -> None:
        self.held = bytearray()  # of a head that has begun and not ended
        self._searched = 0  # bytes of `held` in which there is no end
        self._line_end = 0  # of the request line, once it was found right

    def feed(self, data: memoryview) -> tuple[ParsedHead | None, int]:
        """Take the next bytes; return the head if they end one, and how many of them were taken. Raises HttpError for
        what cannot become the head of a request; nothing may be fed after that."""
        held = self.held
        held += data
        if not self._line_end:
            del held[: _empty_lines(held)]
        end = held.find(_END, max(0, self._searched - len(_END) + 1))
        size = len(held) if end < 0 else end + len(_END)
        self._check_part(size)
        if end < 0:
            self._searched = size
            return None, len(data)
        taken, found = len(data) - (len(held) - size), parse_head(bytes(held[:size]), self._line_end)
        held.clear()
        self._searched = self._line_end = 0
        return found, taken

    def _check_part(self, size: int) -> None:
        """Check the first `size` bytes held, all of them the head's, as far as they are new."""
        held = self.held
        if not self._line_end:
            self._line_end = _check_line(held, size)
        lone = _LONE_LF.search(held, max(0, self._searched - 1), min(size, limits.MAX_HEAD_BYTES))
        if lone is not None:
            raise _bad("a line ends without CR")
        if size > limits.MAX_HEAD_BYTES:
            text = f"over {limits.MAX_HEAD_BYTES} bytes of request line and headers"
            raise HttpError(431, text, closing=True)


def parse_head(head: bytes, line_end: int) -> ParsedHead:
    """Return a whole head, whose request line ends before `line_end` and was checked. Raises HttpError."""
    method, target, _, _, minor = _LINE.fullmatch(head, 0, line_end).groups()  # type: ignore[union-attr]
    fields = _fields(head[line_end + 2 : -2])
    is_old = minor == b"0"
    _check_host(fields.get(b"host"), must=not is_old)
    length = _body_length(fields, is_old=is_old)
    connection = fields.get(b"connection")
    closes = connection is not None and b"close" in _tokens(connection)
    expects = b"expect" in fields and not is_old and length != 0 and fields[b"expect"].lower() == b"100-continue"
    found = RequestHead(method.decode("ascii"), _path(method, target), fields)
    return ParsedHead(found, length, not (is_old or closes), expects)


def _empty_lines(data: bytearray) -> int:
    """Return how many bytes of empty lines come before a request line (RFC 9112, section 2.2)."""
    at = 0
    while data.startswith(b"\r\n", at):
        at += 2
    return at


def _check_line(held: bytearray, size: int) -> int:
    """Return where the request line ends; 0 if it has not ended yet. Raises HttpError if it cannot become one."""
    end = held.find(b"\r\n", 0, min(size, _MAX_LINE))
    if held[:1] == b"\r" and size < 2:
        return 0  # half of an empty line
    if end >= 0 and (line := _LINE.fullmatch(held, 0, end)) is not None:
        _check_version(*line.groups()[2:4])
        if len(line[2]) > limits.MAX_TARGET_BYTES:
            raise _too_long()
        return end
    if end >= 0 and _OLD_LINE.fullmatch(held, 0, end):
        raise HttpError(505, "HTTP/0.9 is not served, HTTP/1.1 is", closing=True)
    if end >= 0 or not _LINE_SO_FAR.fullmatch(held, 0, min(size, _MAX_LINE)):
        raise _bad("the request line")
    if size >= _MAX_LINE:
        raise _too_long()
    return 0


def _check_version(protocol: bytes, major: bytes) -> None:
    if protocol != b"HTTP":
        raise _bad(f"the protocol is {protocol.decode()}")
    if major != b"1":
        raise HttpError(505, f"HTTP/{major.decode()} is not served, HTTP/1.1 is", closing=True)


def _fields(block: bytes) -> dict[bytes, bytes]:
    """Return the fields by lower-case name; values of one name are joined by commas (RFC 9110, section 5.3)."""
    pairs = _FIELD.findall(block)
    if len(pairs) > limits.MAX_HEAD_FIELDS:
        raise HttpError(431, f"{len(pairs)} headers, over {limits.MAX_HEAD_FIELDS}", closing=True)
    fields: dict[bytes, bytes] = {}
    covered = 3 * len(pairs)
    for name, value in pairs:
        covered += len(name) + len(value)
        key = name.lower()
        stripped = value.strip(b" \t")
        fields[key] = b"%b, %b" % (fields[key], stripped) if key in fields else stripped
    if covered != len(block):  # something between the matches is no field
        raise _bad("a header line")
    return fields


def _check_host(host: bytes | None, *, must: bool) -> None:
    """RFC 9112, section 3.2: a request of HTTP/1.1 has one Host. It also keeps a page in a browser of this device from
    asking under a name of its own that was pointed here without naming it."""
    if host is None:
        if must:
            raise _bad("no Host header")
    elif not _HOST.fullmatch(host):
        raise _bad("the Host header is not one host")


def _body_length(fields: dict[bytes, bytes], *, is_old: bool) -> int | None:
    """Return the length of the body, None for one in chunks (RFC 9112, section 6.3)."""
    coding, declared = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if declared is not None or is_old:
            raise _bad("Transfer-Encoding beside Content-Length or in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise HttpError(501, f"transfer-encoding: {coding[:40]!r} is not served, chunked is", closing=True)
        return None
    if declared is None:
        return 0
    if not declared.isdigit():
        raise HttpError(400, f"content-length: not a number: {declared[:20]!r}", closing=True)
    length = declared.lstrip(b"0") or b"0"
    if len(length) > 12 or int(length) > limits.MAX_REQUEST_BYTES:
        raise too_large(length[:20].decode())
    return int(length)


def _path(method: bytes, target: bytes) -> bytes:
    """Return the path of a request target in any of its forms (RFC 9112, section 3.2)."""
    if method == b"CONNECT":
        raise HttpError(405, "CONNECT is not served", closing=True)
    if (authority := _ABSOLUTE.match(target)) is not None:
        target = target[authority.end() :] or b"/"
        target = target if target.startswith(b"/") else b"/" + target
    if not target.startswith(b"/") and not (method == b"OPTIONS" and target == b"*"):
        raise _bad("the request target is neither a path nor a URL")
    return target.partition(b"?")[0].partition(b"#")[0]


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t") for token in value.lower().split(b",")]


def _bad(what: str) -> HttpError:
    return HttpError(400, f"malformed HTTP/1.1 request: {what}", closing=True)


def _too_long() -> HttpError:
    return HttpError(414, f"over {limits.MAX_TARGET_BYTES} bytes of request target", closing=True)
