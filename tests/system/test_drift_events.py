"""Drift on a real device: shifted inputs become an event that the fleet can read, inputs alike do not."""

from __future__ import annotations

import json
import time
from urllib.request import urlopen

import numpy as np
import pytest
from support.makers import bundles
from support.makers.referenced_bundles import make_referenced_bundle
from support.sites.fleet_site import MODEL, Site

from edgewright.demo.stage import run_json, wait_for

pytestmark = pytest.mark.timeout(120)


def ask_for(site: Site, x: np.ndarray, seconds: float, tag: str) -> None:
    """Ask one sample after the other, somewhat faster than the device counts them."""
    url = f"http://{site.slot()['http'].removeprefix('http://')}/v2/models/{MODEL}/infer"
    ends, index = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": x[index % len(x)].tolist()}
        urlopen(url, json.dumps({"inputs": [tensor], "parameters": {"tag": tag}}).encode(), timeout=20).close()
        index += 1
        time.sleep(0.08)


def test_shifted_inputs_become_an_event_and_inputs_alike_do_not(site: Site) -> None:
    site.factory = make_referenced_bundle(site.folder / "factory", name=MODEL).folder
    site.start_depot()
    site.start_controller()
    site.start_agent()
    x, _ = bundles.samples(500, seed=6)
    site.serves("1.0.0")

    def drifts() -> list[str]:
        found = run_json("fleet", "events", str(site.fleet), "--limit", "100")["events"]
        return [event["text"] for event in found if event["event"] == "drift"]

    ask_for(site, x, 10.0, "line-1")
    assert drifts() == []
    shifted = np.clip(x + np.float32([0, 0, 0.9, 0]), -1, 1).astype(np.float32)
    ask_for(site, shifted, 18.0, "line-2")  # two a second are counted of a tag, and thirty can be judged
    wait_for("the tag's drift is known to the fleet", lambda: any(text.startswith("x/2@line-2: ") for text in drifts()))
    assert any(text.startswith("x/2: ") for text in drifts())
    assert not any("@line-1" in text for text in drifts())
