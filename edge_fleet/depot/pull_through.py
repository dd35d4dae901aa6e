"""A pull-through cache for a site: what a depot's folder lacks, or what may have changed, comes from upstream.

Asked for again each time: the timestamp, a root that is not here yet, whatever carries neither version nor hash. Kept
for good, or as long as there is room: what is named by its hash, once the hash holds. Kept a while: versioned
metadata, which only a device can verify, so that a false copy heals by itself. If upstream cannot be reached, or asks
to be left alone, the newest copy is served. Fetching is in `edge_fleet.depot.upstream`, the blobs' files in
`edge_fleet.depot.blob_cache`, answering in `edge_fleet.depot.depot`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_contracts.limits import MAX_BUNDLE_BYTES, MAX_MANIFEST_BYTES, MIB
from edge_contracts.transfer import Kind
from edge_fleet.depot.blob_cache import BlobCache
from edge_fleet.depot.upstream import Upstream
from edge_fleet.errors import ObjectMissingError, UpstreamBusyError, UpstreamError, UpstreamObjectError
from edge_fleet.objects import PATTERNS, Names, locate, promised_digest
from edge_io.durable_files import make_folder, write_file

LIMITS: dict[Kind, int] = {"metadata": 2 * MIB, "target": MAX_MANIFEST_BYTES, "blob": MAX_BUNDLE_BYTES}
"""Most bytes of one object. Devices' own limits for metadata are at most 2 MB."""

AT_ONCE: dict[Kind, int] = {"metadata": 4, "target": 4, "blob": 4}
"""Fetches under way of each kind: long ones of blobs must not keep metadata waiting."""

METADATA_S = 600.0
"""How long a copy of versioned metadata serves before upstream is asked again."""

REMEMBERED = 4096
"""Names of metadata whose age is remembered."""

ABANDONED_S = 3600.0
"""A part file older than this belongs to a process that died."""

Outcome = Literal["here", "missing", "away"]

_ROOT = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_VERSIONED = re.compile(r"[1-9][0-9]*\..+")


@dataclass
class Fetch:
    """One object on its way since `begun`; `outcome` is None until it is in the folder, said to be missing, or upstream
    is away. `later_s` is how long upstream then asked to be left alone."""

    kind: Kind
    begun: float
    outcome: Outcome | None = None
    later_s: float | None = None


class PullThrough:
    """Decides what the folder's copy is good for, and fetches in threads of its own. One thread calls `ask`."""

    def __init__(
        self,
        folder: Path,
        upstream: Upstream,
        log: Callable[[str], None],
        *,
        names: Names = PATTERNS,
        limit: int | None = None,
    ) -> None:
        """`folder` is created, and belongs to depots alone: what is in it may be replaced. `limit` is for its blobs
        together, in bytes."""
        make_folder(folder / "metadata")
        self.folder = folder
        self.names = names
        self._upstream = upstream
        self._log = log
        self._blamed = False
        self._running: dict[str, Fetch] = {}
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._roots = _NewestRoot(folder / "no-root-from")
        self._room = BlobCache(folder / "blobs", limit)
        self._not_before = -math.inf
        self._answers = True
        _remove_abandoned(folder)

    def ask(self, kind: Kind, name: str, offset: int, now: float, *, begin: bool = True) -> Fetch | None:
        """Return the fetch to wait for, or None if the folder's copy will do. Raises ObjectNameError.

        `now` is monotonic. A later piece of an object comes from the same copy as its first one. Without `begin`, and
        when enough fetches are under way, what is returned is not begun and stays without an outcome.
        """
        place = locate(kind, name, self.names)
        self._running = {place: fetch for place, fetch in self._running.items() if fetch.outcome is None}
        if place in self._running:
            return self._running[place]
        have = (self.folder / place).is_file()
        if have and kind == "blob" and offset == 0:
            self._room.touch(self.folder / place)
        if have and (offset > 0 or self._serves(kind, name, now)):
            return None
        if now < self._not_before:
            outcome = self._without_upstream(name, place)
            return None if outcome == "here" else Fetch(kind, now, outcome, self._not_before - now)
        if not begin or sum(fetch.kind == kind for fetch in self._running.values()) >= AT_ONCE[kind]:
            return Fetch(kind, now)
        if kind == "metadata":
            self._remember(name, now)
        fetch = self._running[place] = Fetch(kind, now)
        threading.Thread(target=self._run, args=(fetch, name, place), name="upstream", daemon=True).start()
        return fetch

    def _serves(self, kind: Kind, name: str, now: float) -> bool:
        if promised_digest(kind, name) is not None:
            return True
        return (
            kind == "metadata"
            and bool(_VERSIONED.fullmatch(name))
            and now - self._asked.get(name, -math.inf) < METADATA_S
        )

    def _remember(self, name: str, now: float) -> None:
        self._asked[name] = now
        self._asked.move_to_end(name)
        if len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)

    def _run(self, fetch: Fetch, name: str, place: str) -> None:
        outcome: Outcome = "away"
        try:
            outcome = self._get(fetch.kind, name, place)
        except (UpstreamError, OSError) as error:
            self._reachable(False, str(error))
            if isinstance(error, UpstreamBusyError):
                fetch.later_s = error.delay_s
                self._not_before = max(self._not_before, fetch.begun + error.delay_s)
            outcome = self._without_upstream(name, place)
        finally:
            fetch.outcome = outcome

    def _without_upstream(self, name: str, place: str) -> Outcome:
        if (self.folder / place).is_file():
            return "here"
        return "missing" if self._roots.is_beyond(name) else "away"

    def _get(self, kind: Kind, name: str, place: str) -> Outcome:
        try:
            self._keep(kind, place, promised_digest(kind, name))
        except ObjectMissingError:
            self._reachable(True)
            self._roots.missing(name)
            if name == "timestamp.json":
                self._no_repository(place)
            return "missing"
        except UpstreamObjectError as error:
            # There is no object that its name describes; what came instead is not kept.
            self._log(f"not cached: {error}")
            return "missing"
        self._reachable(True)
        self._roots.found(name)
        return "here"

    def _keep(self, kind: Kind, place: str, promised: str | None) -> None:
        path = self.folder / place
        if kind == "blob":
            self._keep_blob(path, place, promised)
            return
        data = b"".join(_verified(self._upstream.read(place, LIMITS[kind]), promised, place))
        if not path.is_file() or path.read_bytes() != data:
            make_folder(path.parent)
            write_file(path, data)

    def _keep_blob(self, path: Path, place: str, promised: str | None) -> None:
        """Fetch a blob, from where an earlier fetch broke off. If that turns out to be of another file, from its
        start."""
        begun = self._room.take_begun(path)
        if begun is not None:
            try:
                rest = self._upstream.read(place, LIMITS["blob"], begun.stat().st_size)
                self._room.keep(path, _verified(rest, promised, place, begun), begun)
            except UpstreamObjectError as error:
                begun.unlink(missing_ok=True)
                self._log(f"download restarted: {error}")
            else:
                return
        self._room.keep(path, _verified(self._upstream.read(place, LIMITS["blob"]), promised, place), None)

    def _no_repository(self, place: str) -> None:
        if not self._blamed:
            self._log(
                f"upstream has no {place}: its URL must be that of the folder with metadata/, targets/ and blobs/"
            )
        self._blamed = True

    def _reachable(self, answers: bool, why: str = "") -> None:
        """Log a change, and only a change: an uplink may be down for days."""
        if answers != self._answers:
            self._answers = answers
            self._log("upstream reachable again" if answers else f"upstream unreachable, serving cached files: {why}")


class _NewestRoot:
    """The number from which upstream said last that there is no root. Without it, a site without its uplink could
    not tell devices that theirs is the newest, and they could not use what is here. Kept in a file over restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            text = ""
        self._first = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None

    def is_beyond(self, name: str) -> bool:
        found = _ROOT.fullmatch(name)
        return found is not None and self._first is not None and int(found[1]) >= self._first

    def missing(self, name: str) -> None:
        found = _ROOT.fullmatch(name)
        if found is not None and (self._first is None or int(found[1]) < self._first):
            self._set(int(found[1]))

    def found(self, name: str) -> None:
        if self.is_beyond(name):
            self._set(None)

    def _set(self, first: int | None) -> None:
        self._first = first
        write_file(self._path, b"" if first is None else str(first).encode())


def _verified(pieces: Iterator[bytes], promised: str | None, place: str, begun: Path | None = None) -> Iterator[bytes]:
    """Pass pieces on; raise UpstreamObjectError at their end unless they, after what `begun` holds, have the promised
    digest."""
    algorithm = "sha512" if promised is not None and len(promised) == 128 else "sha256"
    digest = hashlib.new(algorithm)
    if begun is not None:
        with begun.open("rb") as file:
            digest = hashlib.file_digest(file, algorithm)
    for piece in pieces:
        digest.update(piece)
        yield piece
    if promised is not None and digest.hexdigest() != promised:
        raise UpstreamObjectError("does not match the hash in its name", subject=place)


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that died left unfinished; other depots may be writing to the same folder."""
    for path in folder.rglob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()
