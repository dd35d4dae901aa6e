"""A repository behind a web server."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import IO

from edge_agent.errors import NotFoundError, RetryAfterError, UnreachableError
from edge_agent.ports import ObjectKind
from edge_agent.updater.transports.directory import repository_path
from edge_contracts.limits import MIB

MAX_WHOLE_BYTES = 8 * MIB
"""How much of an object is kept when a web server ignores Range and sends it all, in bytes."""


class HttpTransport:
    """Reads a repository from a web server, with Range requests where it knows them. http and https only."""

    def __init__(self, base: str, *, timeout_s: float) -> None:
        self._base = base.rstrip("/")
        self._timeout_s = timeout_s
        self._opener = urllib.request.OpenerDirector()
        # No file, ftp or data handler: a redirect must not reach what a URL of ours cannot.
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)
        self._whole: tuple[str, bytes] = ("", b"")

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        url = f"{self._base}/{repository_path(kind, name)}"
        known, body = self._whole
        if known == url and offset > 0:  # whoever begins anew does not want what was kept
            return body[offset : offset + length], len(body)
        request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-{offset + length - 1}"})  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                if answer.status == 206:
                    return answer.read(length), _total(answer.headers.get("Content-Range", ""))
                return self._from_whole(url, answer, offset, length)
        except urllib.error.HTTPError as error:
            return _refused(error, url)
        except (OSError, HTTPException, ValueError) as error:
            raise UnreachableError(str(error) or type(error).__name__, subject=url) from error

    def _from_whole(self, url: str, answer: IO[bytes], offset: int, length: int) -> tuple[bytes, int]:
        body = answer.read(MAX_WHOLE_BYTES + 1)
        if len(body) > MAX_WHOLE_BYTES:
            raise UnreachableError("the server does not support Range requests", subject=url)
        self._whole = (url, body)
        return body[offset : offset + length], len(body)


def _total(content_range: str) -> int:
    found = re.fullmatch(r"bytes \d+-\d+/(\d{1,15})", content_range.strip())
    if found is None:
        raise ValueError(f"Content-Range {content_range[:80]!r}")
    return int(found[1])


def _refused(error: urllib.error.HTTPError, url: str) -> tuple[bytes, int]:
    """Return the end of an object asked for at its very end, or raise what the status means."""
    with error:
        if error.code == 416:
            found = re.fullmatch(r"bytes \*/(\d{1,15})", error.headers.get("Content-Range", "").strip())
            if found is not None:
                return b"", int(found[1])
        if error.code in (403, 404, 410):
            raise NotFoundError(f"HTTP status {error.code}", subject=url)
        if error.code in (429, 503):
            wish = error.headers.get("Retry-After", "")
            raise RetryAfterError(float(wish) if wish.isdecimal() else 30.0)
        raise UnreachableError(f"HTTP status {error.code}", subject=url)
