"""What `test_upstream.py` and `test_upstream_processes.py` share."""

from __future__ import annotations

from support.sites.web_site import Misbehavior, WebSite

from edge_fleet.depot.upstream import HttpUpstream

PLACE = "metadata/timestamp.json"
DATA = bytes(range(256)) * 1000


def fetch(site: WebSite, place: str = PLACE, limit: int = len(DATA)) -> bytes:
    return b"".join(HttpUpstream(site.url).read(place, limit))


def answering(site: WebSite, answer: Misbehavior) -> WebSite:
    site.answers[f"/{PLACE}"] = answer
    return site
