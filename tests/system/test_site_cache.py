"""The whole path through a site's cache: release, web server, `fleet depot --upstream`, broker, device."""

from __future__ import annotations

import pytest
from support.sites.fleet_site import Site
from support.sites.web_site import WebSite

pytestmark = pytest.mark.timeout(120)


def test_a_release_reaches_a_device_through_a_sites_cache_and_the_uplink_may_go_down(any_site: Site) -> None:
    site = any_site
    site.publish("1.0.0", padding=300_000)
    site.roll_out("1.0.0")
    with WebSite(site.repository) as web:
        site.depot_options = ("--upstream", web.url, "--poll", "0.5")
        site.start_depot(site.folder / "cache")
        site.start_agent()
        site.wait_for_state("committed", "1.0.0")
        asked = list(web.asked)
        site.publish("1.1.0")
        site.roll_out("1.1.0")
        site.wait_for_state("committed", "1.1.0")
    site.serves("1.1.0")
    blobs = [path for path in asked if path.startswith("/blobs/")]
    assert len(blobs) == len(set(blobs)) > 1
