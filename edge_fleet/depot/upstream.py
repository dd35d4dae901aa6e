"""Where a site's depot gets what it does not have: a repository of the same layout, behind HTTP or HTTPS.

Upstream is not trusted: how much it may send, how slowly and from which scheme is limited here; what is kept of it is
decided in `edge_fleet.depot.pull_through`; whether it is signed is the devices' to verify.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from edge_contracts.limits import CHUNK_BYTES, KIB
from edge_fleet.errors import (
    FleetError,
    ObjectMissingError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamObjectError,
)

SCHEMES = ("http", "https")

SILENCE_S = 10.0
"""How long upstream may say nothing at all, in seconds."""

MAX_LATER_S = 3600.0
"""The longest that upstream may ask to be left alone, in seconds."""

GRACE_S = 30.0
SLOWEST = 4.0 * KIB
"""After the grace, an average below so many bytes per second counts as broken off: half of a bad 2G link."""


class Upstream(Protocol):
    """The repository behind a site's depot."""

    def read(self, place: str, limit: int, start: int = 0) -> Iterator[bytes]:
        """Yield the object at `place`, a path below the repository, from byte `start` on, in pieces; safe to call from
        several threads.

        Raises ObjectMissingError when upstream says that there is none, UpstreamObjectError when the object has more
        than `limit` bytes or fewer than `start`, UpstreamBusyError when it asks to come back later, and UpstreamError
        when it cannot be reached or breaks off, which may be after some pieces.
        """
        ...


class HttpUpstream:
    """A web server with `metadata/`, `targets/` and `blobs/` below `base`."""

    def __init__(self, base: str) -> None:
        """Raises FleetError unless `base` is a plain http or https URL."""
        self._base = _checked(base).rstrip("/")
        self._opener = urllib.request.OpenerDirector()
        # No handler for files or FTP: only what is added here can be reached, by a redirect too.
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            _SameScheme(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def read(self, place: str, limit: int, start: int = 0) -> Iterator[bytes]:
        url = f"{self._base}/{place}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the opener knows http and https only
            with self._opener.open(request, timeout=SILENCE_S) as answer:
                yield from _from(start, answer, url, limit)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error, url) from error
        except (OSError, HTTPException, ValueError) as error:
            raise UpstreamError(str(error) or type(error).__name__, subject=url) from error


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only within its scheme: not out of HTTPS, and not to what is no web server."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != req.type:
            raise UpstreamError(f"redirects to another scheme: {newurl[:80]!r}", subject=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refusal(error: urllib.error.HTTPError, url: str) -> Exception:
    """Return what a status other than success means."""
    what = f"HTTP status {error.code}"
    # 403 is how object stores say that there is none to clients that may not list.
    if error.code in (403, 404, 410):
        return ObjectMissingError(what, subject=url)
    if error.code == 416:
        return UpstreamObjectError("is shorter than before", subject=url)
    wish = error.headers.get("Retry-After", "")
    if error.code in (429, 503) and wish.isdecimal():
        return UpstreamBusyError(what, subject=url, delay_s=min(float(wish[:9]), MAX_LATER_S))
    return UpstreamError(what, subject=url)


def _from(start: int, answer: Any, url: str, limit: int) -> Iterator[bytes]:
    """Yield the pieces of an `http.client.HTTPResponse` from byte `start` of the object on, under the limits. A server
    that ignores Range sends all of it: then the beginning is read and dropped."""
    if answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        yield from _body(answer, url, limit - start)
        return
    if answer.status != 200:
        raise UpstreamError(f"HTTP status {answer.status}", subject=url)
    left = start
    for piece in _body(answer, url, limit):
        yield piece[left:]
        left = max(0, left - len(piece))


def _body(answer: Any, url: str, limit: int) -> Iterator[bytes]:
    """Yield the pieces of the body under the limits."""
    declared = answer.headers.get("Content-Length", "")
    size = int(declared) if declared.isdecimal() else None
    if size is not None and size > limit:
        raise UpstreamObjectError(f"{size} bytes, over the limit of {limit}", subject=url)
    received, started = 0, time.monotonic()
    # One system call at a time, so that a trickle is noticed.
    while piece := answer.read1(CHUNK_BYTES):
        received += len(piece)
        if received > limit:
            raise UpstreamObjectError(f"over the limit of {limit} bytes", subject=url)
        if time.monotonic() - started > GRACE_S + received / SLOWEST:
            raise UpstreamError(f"too slow: {received} bytes in {time.monotonic() - started:.0f} s", subject=url)
        yield piece
    if size is not None and received != size:
        raise UpstreamError(f"download ended after {received} of {size} bytes", subject=url)


def _checked(base: str) -> str:
    try:
        parts = urlsplit(base)
        good = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username is not None:
        raise FleetError(
            f"{base[:80]!r} is not an http or https URL",
            subject="upstream",
            hint="for example https://updates.example.org/repository",
        )
    return base
