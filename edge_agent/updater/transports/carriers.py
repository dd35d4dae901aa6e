"""Carriers: how pieces of the repository reach the device. Over MQTT, HTTP, or from a folder such as a USB stick.

None of them is trusted: what they bring is checked by `edge_agent.updater.trusted_repository` and
`edge_agent.updater.download`. All are safe to call from several threads, which is how a window of requests is kept in
flight.
"""

from __future__ import annotations

import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO

from edge_agent.errors import NotFoundError, RetryAfterError, UnreachableError
from edge_agent.ports import Carrier, ObjectKind
from edge_contracts.limits import MIB

_NAMES: dict[ObjectKind, re.Pattern[str]] = {
    # A role's name is anything and comes percent-encoded, which leaves it one segment.
    "metadata": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.%~-]{0,127}\.json"),
    "target": re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127}/){0,8}[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"),
    "blob": re.compile(r"[0-9a-f]{64}"),
}
MAX_WHOLE_BYTES = 8 * MIB
"""How much of an object is kept when a web server ignores Range and sends it all, in bytes."""


def repository_path(kind: ObjectKind, name: str) -> str:
    """Return where an object lies below a repository's root. Raises NotFoundError for a name no object can have."""
    if not _NAMES[kind].fullmatch(name):
        raise NotFoundError("no such name", subject=f"{kind} {name[:80]}")
    if kind == "blob":
        return f"blobs/{name[:2]}/{name}"
    return f"{'metadata' if kind == 'metadata' else 'targets'}/{name}"


class DirectoryCarrier:
    """Reads an exported repository: a USB stick or any folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        path = self._root / repository_path(kind, name)
        try:
            # Not blocking and no link followed: the stick may hold a FIFO or a link under an object's name.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise NotFoundError("no such file", subject=str(path)) from error
        except OSError as error:
            raise UnreachableError(f"cannot be read: {error.strerror}", subject=str(path)) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreachableError("is no file", subject=str(path))
            return os.pread(descriptor, length, offset), status.st_size
        except OSError as error:
            raise UnreachableError(f"cannot be read: {error.strerror}", subject=str(path)) from error
        finally:
            os.close(descriptor)


class HttpCarrier:
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
        if known == url:
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
            raise UnreachableError("the server ignores Range on a large object", subject=url)
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


class FallbackCarrier:
    """Asks the carriers in turn; one that does not answer goes to the end. Chunks are named by hash, so it does not
    matter which carrier brings which."""

    def __init__(self, carriers: Sequence[Carrier]) -> None:
        self._carriers = tuple(carriers)

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        order = self._carriers
        for carrier in order[:-1]:
            try:
                return carrier.read(kind, name, offset, length)
            except (UnreachableError, RetryAfterError):
                self._carriers = (*(c for c in order if c is not carrier), carrier)
        return order[-1].read(kind, name, offset, length)
