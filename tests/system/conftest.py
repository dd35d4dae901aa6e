"""Fixtures of the system tests: sites on real brokers, each with its own processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brokers.brokers import BROKERS, make_broker
from support.sites.fleet_site import Site


@pytest.fixture(params=BROKERS)
def any_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site on each kind of broker, nothing published yet."""
    with make_broker(request.param, tmp_path) as broker, Site(tmp_path, broker) as site:
        yield site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site on the embedded broker, nothing published yet."""
    with make_broker("embedded", tmp_path) as broker, Site(tmp_path, broker) as site:
        yield site


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Site]:
    """A site on the embedded broker whose device serves 1.0.0, committed."""
    with make_broker("embedded", tmp_path) as broker, Site(tmp_path, broker) as site:
        site.publish("1.0.0")
        site.start_depot()
        site.start_agent()
        site.roll_out("1.0.0")
        site.wait_for_state("committed", "1.0.0")
        yield site
