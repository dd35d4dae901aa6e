"""What `test_upstream.py` and `test_upstream_processes.py` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.sites.web_site import Misbehavior, WebSite

from edge_fleet.depot.upstream import HttpUpstream

PLACE = "metadata/timestamp.json"
DATA = bytes(range(256)) * 1000


@contextmanager
def upstream_site(folder: Path) -> Iterator[WebSite]:
    """Serve a folder whose one object is `DATA` at `PLACE`."""
    (folder / "metadata").mkdir()
    (folder / PLACE).write_bytes(DATA)
    with WebSite(folder) as site:
        yield site


def fetch(site: WebSite, place: str = PLACE, limit: int = len(DATA)) -> bytes:
    return b"".join(HttpUpstream(site.url).read(place, limit))


def answering(site: WebSite, answer: Misbehavior) -> WebSite:
    site.answers[f"/{PLACE}"] = answer
    return site
