"""Every rung of the fallback ladder answers, as a user of a real agent sees it in `served_by`, and the ladder is
climbed again: active variant, next variant, last-good, factory, last resort.

Each model answers NaN beyond a limit of its own, so that the request decides how far down its answer comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.boxes.pretended_board import BoardAgent, factory_slot
from support.makers import bundles as bundle_maker
from support.sites.agent_process import eventually
from support.sites.update_site import UpdateSite

from edge_agent.inference.rungs.health import PATIENCE
from edge_contracts.channel import Gates
from edge_contracts.manifest import LastResort

pytestmark = pytest.mark.timeout(120)

LADDER = (
    (5.0, "active:1.1.0/fp32"),
    (15.0, "active:1.1.0/small"),
    (25.0, "last-good:1.0.0/fp32"),
    (35.0, "factory:0.1.0/fp32"),
    (45.0, "last-resort/constant"),
)
CONSTANT = [0.25, 0.5, 0.125]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardAgent]:
    """An agent that serves 1.1.0, after 1.0.0, above a factory bundle; slots of factory bundles beside it."""
    folder = tmp_path_factory.mktemp("ladder")
    bundle_maker.make_bundle(folder / "factory", version="0.1.0", models=[("fp32", bundle_maker.nan_model(40))])
    keeps = LastResort(kind="last_value", fresh_s=1.0)
    bundle_maker.make_bundle(folder / "keeps", models=[("fp32", bundle_maker.nan_model(10))], last_resort=keeps)
    site = UpdateSite(folder)
    site.release("1.0.0", models=[("fp32", bundle_maker.nan_model(30))])
    models = [("fp32", bundle_maker.nan_model(10)), ("small", bundle_maker.nan_model(20))]
    constant = LastResort(kind="constant", values=tuple(CONSTANT))
    site.release("1.1.0", models=models, last_resort=constant)
    slots = factory_slot("keeps", folder / "keeps")
    with BoardAgent(folder, site, slots=slots, factory=folder / "factory") as agent:
        for version in ("1.0.0", "1.1.0"):
            site.start(version, gates=Gates(soak_s=0.3))
            agent.bring()
            agent.wait_for("committed", version)
        yield agent


def damage(model: Path) -> bytes:
    """Break a model file as a dying card does, and return what it held."""
    before = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes(before[:-7] + bytes(7))
    return before


def test_each_rung_answers_what_those_above_cannot(agent: BoardAgent) -> None:
    assert [agent.answers_from("main", rung, value).status for value, rung in LADDER] == [200] * len(LADDER)
    resort = agent.answer("main", LADDER[-1][0])
    assert (resort.served_by, resort.output) == ("last-resort/constant", CONSTANT)
    assert "fp32" in resort.body["parameters"]["warnings"]
    agent.answers_from("main", LADDER[0][1])


def test_rungs_that_keep_failing_rest_and_are_climbed_again(agent: BoardAgent) -> None:
    agent.answers_from("main", LADDER[0][1])
    assert {agent.answer("main", 35.0).served_by for _ in range(PATIENCE)} == {"factory:0.1.0/fp32"}
    assert agent.answer("main", 5.0).served_by == "factory:0.1.0/fp32"
    agent.answers_from("main", LADDER[0][1], 5.0)
    eventually("the status shows it", lambda: agent.of("main").served_by == LADDER[0][1])
    failed = {event.text.split(": ")[0] for event in agent.events("rung-failed") if event.slot == "main"}
    assert failed >= {rung for _, rung in LADDER[:3]}


def test_damaged_files_cost_rungs_and_repaired_ones_give_them_back(agent: BoardAgent) -> None:
    record = agent.state.read_record("main")
    assert record.serving is not None
    assert record.last_good is not None
    active = agent.state.release(record.serving.manifest_sha256) / "models"
    last_good = agent.state.release(record.last_good.manifest_sha256) / "models"
    steps = (
        ((active / "fp32.onnx",), "active:1.1.0/small"),
        ((active / "small.onnx",), "last-good:1.0.0/fp32"),
        ((last_good / "fp32.onnx",), "factory:0.1.0/fp32"),
        ((agent.config.parent / "factory" / "models" / "fp32.onnx",), "last-resort/constant"),
    )
    held = {}
    for models, rung in steps:
        agent.stop()
        held |= {model: damage(model) for model in models}
        agent.start()
        assert agent.answers_from("main", rung).status == 200
        assert agent.of("main").served_by == rung
    for model, data in held.items():
        model.write_bytes(data)
    agent.answers_from("main", LADDER[0][1])


def test_last_resort_repeats_the_last_answer_while_it_is_fresh_and_then_abstains(agent: BoardAgent) -> None:
    good = agent.answers_from("keeps", "factory:1.0.0/fp32")
    stale = agent.answers_from("keeps", "last-resort/last_value", 50.0)
    assert stale.output == good.output
    abstained = agent.answers_from("keeps", "last-resort/abstain", 50.0)
    assert (abstained.output, abstained.body["parameters"]["abstained"]) == ([], True)
    assert agent.answer("keeps").served_by == "factory:1.0.0/fp32"
