"""The body of an HTTP/1.1 request: what of the bytes that come is its, and when it ends. No socket, no clock.

A body of declared length is counted. One in chunks is read strictly: RFC 9112, section 7.1, with CRLF ends and without
the white space that older grammars allowed. What is around the chunks' data counts against a limit by its place in the
message and not by the reads it came in.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from edge_agent.http.messages import HttpError
from edge_contracts import limits

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_SIZE: Final = re.compile(rb"0*([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_SIZE_SO_FAR: Final = re.compile(rb"(?:[0-9A-Fa-f]+(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?")
_TRAILER: Final = re.compile(rb"(%b+):[^\x00-\x08\x0a-\x1f\x7f]*\r\n" % _TOKEN)
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_CRLF: Final = b"\r\n"


class BodyReader(Protocol):
    """Reads one body, until it is `done`."""

    done: bool

    def feed(self, data: memoryview) -> tuple[bytes, int]:
        """Return what of `data` is the body's and how many of its bytes were taken: all, unless the body ends before.
        Raises HttpError for what is no body; nothing may be fed after that."""
        ...


class LengthReader:
    """A body of declared length."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length

    def feed(self, data: memoryview) -> tuple[bytes, int]:
        piece = bytes(data[: self._left])
        self._left -= len(piece)
        self.done = not self._left
        return piece, len(piece)


class ChunkedReader:
    """A body in chunks. `_at` is what comes next: the line of a chunk's "size", its "data", the "end" of its data, or a
    "trailer", a line behind the last chunk."""

    __slots__ = ("_around", "_at", "_left", "_line", "_size", "done")

    def __init__(self) -> None:
        self.done = False
        self._at = "size"
        self._line = bytearray()  # one that has not ended yet
        self._left = 0  # of a chunk's data
        self._size = self._around = 0  # bytes of data, and around it; at last of the trailer

    def feed(self, data: memoryview) -> tuple[bytes, int]:
        whole, at = bytes(data), 0
        pieces: list[bytes] = []  # joined here: small chunks kept apart would take many times their size
        while at < len(whole) and not self.done:
            if self._at != "data":
                at = self._feed_line(whole, at)
                continue
            piece = whole[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            self._size += len(piece)
            pieces.append(piece)
            if not self._left:
                self._at = "end"
        return b"".join(pieces), at

    def _feed_line(self, data: bytes, at: int) -> int:
        """Take bytes up to the end of a line, or all there are; return the place behind them."""
        stop = data.find(b"\n", at) + 1 or len(data)
        line = self._line
        line += data[at:stop]
        self._around += stop - at
        has_ended = line.endswith(b"\n")
        spared = 0 if self._at == "trailer" else 8 * self._size  # chunks of a byte or two are allowed
        if max(self._around - spared, len(line)) > limits.MAX_HEAD_BYTES:
            status = 431 if self._at == "trailer" else 400
            raise HttpError(status, f"over {limits.MAX_HEAD_BYTES} bytes of chunk headers or trailers", closing=True)
        if has_ended:
            self._take(bytes(line))
            line.clear()
        elif self._at == "end" and line != b"\r":
            raise _bad("a chunk is longer than its size")
        elif self._at == "size" and not _SIZE_SO_FAR.fullmatch(line):
            raise _bad("the size of a chunk")
        return stop

    def _take(self, line: bytes) -> None:
        if self._at == "size":
            size = _SIZE.fullmatch(line)
            if size is None:
                raise _bad("the size of a chunk")
            self._left = int(size[1], 16)
            self._at = "data" if self._left else "trailer"
            self._around = self._around if self._left else 0
        elif self._at == "end":
            if line != _CRLF:
                raise _bad("a chunk is longer than its size")
            self._at = "size"
        elif line == _CRLF:
            self.done = True
        else:
            trailer = _TRAILER.fullmatch(line)
            if trailer is None or trailer[1].lower() in _FRAMING:
                raise _bad("a trailer")


def _bad(what: str) -> HttpError:
    return HttpError(400, f"malformed HTTP/1.1 request: {what}", closing=True)
