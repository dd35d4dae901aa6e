"""A pipeline under a real agent: it comes as an update, says who answered in each node, and what its nodes break is
never answered wrongly."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.makers import bundles
from support.makers.pipelines import make_chain
from support.sites.agent_process import AgentProcess, eventually
from support.sites.update_site import UpdateSite

from edge_agent.cli.status import status_text
from edge_contracts.channel import Gates
from edge_fleet.releases.release import release

pytestmark = pytest.mark.timeout(300)

FOUR_GIGABYTES_OF_FLOATS = 1e9


def classes_of(answer: dict[str, Any]) -> list[float]:
    """Return the numbers of an answer's only output."""
    (output,) = answer["outputs"]
    numbers: list[float] = output["data"]
    return numbers


def expected() -> list[float]:
    """Return what the chain answers to the sample that `AgentProcess.ask` asks."""
    numbers: list[float] = (2 * bundles.samples(1)[0] @ bundles.WEIGHTS)[0].tolist()
    return numbers


def nodes_of(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each node said of itself."""
    return {node["node"]: node for node in json.loads(answer["parameters"]["nodes"])}


def answered(agent: AgentProcess) -> dict[str, Any]:
    """Return an answer to the usual sample, once there is one."""

    def probe() -> dict[str, Any] | None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return agent.ask()
        return None

    return eventually("an answer", probe, timeout_s=60.0)


def test_a_pipeline_serves_from_a_folder_and_a_failing_variant_stays_inside_its_node(tmp_path: Path) -> None:
    models = [("nan", bundles.nan_model()), ("good", bundles.linear_model())]
    chain = make_chain(tmp_path, models=models)
    with AgentProcess(tmp_path, None, factory=chain.folder) as agent:
        usual = answered(agent)
        assert usual["parameters"]["served_by"] == "factory:2.0.0/full"
        assert classes_of(usual) == pytest.approx(expected(), rel=1e-5)
        assert nodes_of(usual)["first"]["served_by"] == "local:1.0.0/nan"
        assert nodes_of(usual)["second"]["timing_us"] >= 0
        eventually("status names the nodes", lambda: set(agent.slot().nodes) == {"first", "second"})
        assert "    node    first  served by: local:1.0.0/nan" in status_text(agent.status())
        poisoned = agent.ask(1000.0)
        right = 2 * np.full((1, 4), 1000.0) @ bundles.WEIGHTS
        assert classes_of(poisoned) == pytest.approx(right[0].tolist())
        assert nodes_of(poisoned)["first"]["served_by"] == "local:1.0.0/good"


def test_a_node_that_takes_its_engine_down_costs_that_request_and_never_the_truth(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0")
    site.start("1.0.0", gates=Gates(soak_s=0.3))
    with AgentProcess(tmp_path, site) as agent:
        agent.bring()
        agent.wait_for("committed", "1.0.0")
        models = [("explodes", bundles.exploding_model()), ("small", bundles.scaled_model(0.5))]
        release(site.fleet, make_chain(tmp_path / "made", models=models).folder, site.now)
        site.start("2.0.0", gates=Gates(soak_s=0.3))
        agent.bring()
        agent.wait_for("committed", "2.0.0")
        first = answered(agent)
        assert first["parameters"]["served_by"] == "active:2.0.0/full"
        assert classes_of(first) == pytest.approx(expected(), rel=1e-5)
        for _ in range(12):
            with pytest.raises((OSError, http.client.HTTPException)) as caught:
                agent.ask(FOUR_GIGABYTES_OF_FLOATS, timeout_s=30.0)
            if isinstance(caught.value, urllib.error.HTTPError):
                assert caught.value.code == 503
            after = answered(agent)
            numbers, served_by = np.array(classes_of(after)), after["parameters"]["served_by"]
            right = np.array(expected()) * (1.0 if served_by.startswith("active:2.0.0") else 0.5)
            assert numbers == pytest.approx(right, rel=1e-5), served_by
            if served_by == "last-good:1.0.0/fp32":
                return
        raise AssertionError(f"the release that kills its workers was never left out\n{agent.log}")
