"""Where a site's depot gets what it does not have: a repository of the same layout, behind HTTP or HTTPS.

Upstream is not trusted: how much it may send, how slowly and from which scheme is limited here; what is kept of it is
decided in `edge_fleet.pull`; whether it is signed is the devices' to verify.
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
from edge_fleet.errors import FleetError, ObjectMissingError, UpstreamError, UpstreamObjectError

SCHEMES = ("http", "https")

SILENCE_S = 10.0
"""How long upstream may say nothing at all, in seconds."""

GRACE_S = 30.0
SLOWEST = 4.0 * KIB
"""After the grace, an average below so many bytes per second counts as broken off: half of a bad 2G link."""


class Upstream(Protocol):
    """The repository behind a site's depot."""

    def read(self, place: str, limit: int) -> Iterator[bytes]:
        """Yield the object at `place`, a path below the repository, in pieces; safe to call from several threads.

        Raises ObjectMissingError when upstream says that there is none, UpstreamObjectError beyond `limit` bytes, and
        UpstreamError when it cannot be reached or breaks off, which may be after some pieces.
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

    def read(self, place: str, limit: int) -> Iterator[bytes]:
        url = f"{self._base}/{place}"
        try:
            with self._opener.open(url, timeout=SILENCE_S) as answer:
                yield from _body(answer, url, limit)
        except urllib.error.HTTPError as error:
            with error:
                # 403 is how object stores say that there is none to clients that may not list.
                if error.code in (403, 404, 410):
                    raise ObjectMissingError(f"HTTP status {error.code}", subject=url) from error
                raise UpstreamError(f"HTTP status {error.code}", subject=url) from error
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


def _body(answer: Any, url: str, limit: int) -> Iterator[bytes]:
    """Yield the pieces of an `http.client.HTTPResponse` under the limits."""
    if answer.status != 200:
        raise UpstreamError(f"HTTP status {answer.status}", subject=url)
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
        raise UpstreamError(f"broke off after {received} of {size} bytes", subject=url)


def _checked(base: str) -> str:
    try:
        parts = urlsplit(base)
        good = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username is not None:
        raise FleetError(
            f"{base[:80]!r} is no http or https address of a repository",
            subject="upstream",
            hint="for example https://updates.example.org/repository",
        )
    return base
