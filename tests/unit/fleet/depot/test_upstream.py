"""The web server behind a site's depot: what is taken from it, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.parts.upstream import DATA, PLACE, answering, fetch, upstream_site
from support.sites.web_site import Misbehavior, WebSite, failing, giving, redirecting, undeclared

from edge_fleet.depot.upstream import HttpUpstream
from edge_fleet.errors import FleetError, ObjectMissingError, UpstreamError, UpstreamObjectError


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[WebSite]:
    with upstream_site(tmp_path) as site:
        yield site


def test_an_object_comes_whole(site: WebSite) -> None:
    assert fetch(site) == DATA
    assert fetch(answering(site, undeclared(DATA))) == DATA


def test_a_trailing_slash_of_the_address_does_not_matter(site: WebSite) -> None:
    assert b"".join(HttpUpstream(f"{site.url}/").read(PLACE, len(DATA))) == DATA
    assert site.asked == [f"/{PLACE}"]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_upstream_does_not_have_is_missing(site: WebSite, status: int) -> None:
    with pytest.raises(ObjectMissingError):
        fetch(answering(site, failing(status)))


@pytest.mark.parametrize("status", [400, 401, 429, 500, 502, 503])
def test_a_server_in_trouble_is_not_one_without_the_object(site: WebSite, status: int) -> None:
    with pytest.raises(UpstreamError):
        fetch(answering(site, failing(status)))


def test_a_dead_server_is_away() -> None:
    with pytest.raises(UpstreamError):
        list(HttpUpstream("http://127.0.0.1:1").read(PLACE, 10))


@pytest.mark.parametrize("answer", [giving(DATA), undeclared(DATA), giving(b"x", declared=2**70)])
def test_an_oversized_object_is_refused(site: WebSite, answer: Misbehavior) -> None:
    with pytest.raises(UpstreamObjectError):
        fetch(answering(site, answer), limit=len(DATA) - 1)


def test_an_answer_that_breaks_off_is_noticed(site: WebSite) -> None:
    with pytest.raises(UpstreamError, match="download ended after"):
        fetch(answering(site, giving(DATA[:-1], declared=len(DATA))))


def test_a_redirect_within_http_is_followed(site: WebSite) -> None:
    site.answers["/elsewhere"] = giving(DATA)
    assert fetch(answering(site, redirecting("/elsewhere"))) == DATA


def test_redirects_in_a_circle_end(site: WebSite) -> None:
    with pytest.raises(UpstreamError):
        fetch(answering(site, redirecting(f"/{PLACE}")))


@pytest.mark.parametrize(
    "address",
    [
        "file:///srv/repository",
        "ftp://host/repository",
        "/srv/repository",
        "host:80",
        "http://",
        "http://host:0",
        "http://host:99999",
        "http://[::1",
        "http://me:secret@host/",
        "http://host/?a=b",
        "http://host/#a",
    ],
)
def test_only_a_plain_web_address_is_an_upstream(address: str) -> None:
    with pytest.raises(FleetError, match="is not an http or https URL"):
        HttpUpstream(address)
