"""What `test_upstream.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from support.parts.upstream import answering, fetch, upstream_site
from support.sites.web_site import WebSite, redirecting

from edge_fleet.depot import upstream
from edge_fleet.errors import UpstreamError


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[WebSite]:
    with upstream_site(tmp_path) as site:
        yield site


def test_a_trickle_is_not_waited_for(site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    monkeypatch.setattr(upstream, "GRACE_S", 0.2)
    with pytest.raises(UpstreamError, match="too slow"):
        fetch(answering(site, trickle))


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "https://127.0.0.1:1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_not_followed(site: WebSite, place: str) -> None:
    with pytest.raises(UpstreamError):
        fetch(answering(site, redirecting(place)))
