"""Release to answer through real processes and both brokers, and the releases a device has to survive."""

from __future__ import annotations

import contextlib
import http.client

import pytest
from support.makers import bundles
from support.sites.fleet_site import MODEL, Site, glitch

from edgewright.demo.stage import run_json, wait_for

pytestmark = pytest.mark.timeout(120)


def test_signed_release_reaches_the_device_and_answers(any_site: Site) -> None:
    site = any_site
    site.publish("1.0.0", padding=300_000)
    site.start_depot()
    site.start_controller()
    site.start_agent()
    site.roll_out("1.0.0")
    slot = site.wait_for_state("committed", "1.0.0")
    assert slot["serving"]["version"] == "1.0.0"
    assert ":1.0.0/" in site.ask().served_by

    def reported() -> bool:
        devices = run_json("fleet", "devices", str(site.fleet))["devices"]
        return bool(devices) and any(slot["state"] == "committed" for slot in devices[0]["slots"])

    wait_for("the fleet knows", reported)


def test_second_release_takes_over_and_bad_ones_are_survived(any_site: Site) -> None:
    site = any_site
    site.publish("1.0.0")
    site.start_depot()
    site.start_agent()
    site.roll_out("1.0.0")
    site.wait_for_state("committed", "1.0.0")

    site.publish("1.1.0", models=[("fp32", bundles.wrong_model())])
    site.roll_out("1.1.0")
    assert "quality" in site.wait_for_state("rejected", "1.1.0")["reason"]
    site.serves("1.0.0")

    site.publish("1.2.0", models=[("fp32", bundles.exploding_model())])
    site.roll_out("1.2.0", soak_s=60)
    site.wait_for_state("active", "1.2.0")
    site.serves("1.2.0")
    with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
        site.client().infer(glitch(4e9))
    site.wait_for_state("rolled_back", "1.2.0")
    site.serves("1.0.0")

    site.publish("2.0.0")
    site.roll_out("2.0.0")
    site.wait_for_state("committed", "2.0.0")
    site.serves("2.0.0")


def test_release_that_hangs_in_soak_is_rolled_back(serving: Site) -> None:
    site = serving
    site.publish("1.1.0", models=[("fp32", bundles.looping_model())])
    site.roll_out("1.1.0", soak_s=120)
    site.wait_for_state("active", "1.1.0")
    site.serves("1.1.0")
    with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
        site.client().infer(glitch(1e15), timeout_s=60)
    site.wait_for_state("rolled_back", "1.1.0", timeout_s=60)
    site.serves("1.0.0")


def test_aborted_rollout_returns_the_device_to_last_good(serving: Site) -> None:
    site = serving
    run_json("fleet", "rollout", "finish", str(site.fleet), "--channel", "test")
    site.publish("1.1.0")
    site.roll_out("1.1.0", soak_s=300)
    site.wait_for_state("active", "1.1.0")
    run_json("fleet", "rollout", "abort", str(site.fleet), "--channel", "test")
    site.serves("1.0.0")


def test_usb_export_updates_a_device_without_a_network(site: Site) -> None:
    site.publish("1.0.0")
    site.start_agent()
    site.roll_out("1.0.0")
    stick = site.folder / "stick"
    run_json("fleet", "export", str(site.fleet), str(stick))
    site.broker.kill()
    run_json("agent", "import", "--config", str(site.config), str(stick))
    site.wait_for_state("committed", "1.0.0")
    site.serves("1.0.0")


def test_served_model_is_ready_by_its_open_inference_name(serving: Site) -> None:
    connection = http.client.HTTPConnection(serving.slot()["http"], timeout=5)
    connection.request("GET", f"/v2/models/{MODEL}/ready")
    assert connection.getresponse().status == 200
    connection.close()
