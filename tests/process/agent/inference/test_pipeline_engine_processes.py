"""What `test_pipeline_engine.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

from pathlib import Path

from support.makers import bundles
from support.makers.pipelines import (
    changed,
    graph_of,
    make_chain,
)
from support.parts import pipeline_engine as parts
from support.parts.pipeline_engine import node

from edge_agent.bundle import Bundle
from edge_agent.inference.runtime import Runtime
from edge_agent.ipc.trial import TrialPlan
from edge_agent.trial.__main__ import run_trial

camera = parts.camera


def test_a_pipeline_comes_through_its_trial(camera: Bundle) -> None:
    (trial,) = run_trial(TrialPlan(folder=str(camera.folder))).variants
    assert trial.passed, trial.text
    assert trial.golden_error == 0.0
    assert trial.latency_ms is not None


def test_a_chain_has_a_full_and_a_light_rung_and_keeps_its_quality(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    assert [variant.id for variant in chain.manifest.variants] == ["full", "light"]
    report = run_trial(TrialPlan(folder=str(chain.folder)))
    assert report.usable == ("full", "light"), report
    assert [trial.score for trial in report.variants] == [1.0, 1.0]
    with Runtime.open(chain.folder) as runtime:
        x, y = bundles.samples(20)
        assert runtime.infer({"x": x}).outputs["y"].argmax(axis=1).tolist() == y.tolist()
        runtime.prefer("light")
        light = runtime.infer({"x": x})
        assert node(light, "first").served_by == "local:1.0.0/small"
        assert light.outputs["y"].argmax(axis=1).tolist() == y.tolist()


def test_a_graph_changed_by_hand_fails_its_trial_with_the_node_named(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    nodes = [
        one | ({"inputs": {"y": "input/x"}} if one["name"] == "second" else {}) for one in graph_of(chain)["nodes"]
    ]
    report = run_trial(TrialPlan(folder=str(changed(chain, nodes=nodes).folder)))
    assert report.usable == ()
    assert report.variants[0].reason == "load"
    assert "nodes[second].inputs[y]" in report.variants[0].text
