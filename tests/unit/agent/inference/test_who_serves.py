"""Who is said to serve is who answers, and a slot that can only abstain is not ready."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.makers import bundles
from support.sites.worker_host import ladder_of

from edge_agent import Runtime
from edge_agent.bundle import Bundle
from edge_agent.http.messages import HttpError, RequestHead
from edge_agent.http.oip_app import AppState, OipApp
from edge_agent.inference.rungs.pool import FIRST_LOOK
from edge_agent.inference.rungs.rung import GuardError, LoadedRung
from edge_contracts.guards import OutputGuard
from edge_contracts.manifest import LastResort, Output

X, _ = bundles.samples(2)
ONE = [("fp32", bundles.linear_model())]


def damage(bundle: Bundle, variant: str = "fp32") -> bytes:
    """Flip a bit of a variant; return what it was."""
    path = bundle.folder / "models" / f"{variant}.onnx"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    return before


def refuse(*_: object) -> None:
    raise GuardError("outside its range", subject="y")


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: now() + seconds)


def test_a_damaged_variant_is_not_said_to_serve_after_its_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundles.make_bundle(
        tmp_path / "b", models=[("fp32", bundles.linear_model()), ("small", bundles.linear_model())]
    )
    damage(made)
    runtime = Runtime(ladder_of(made))
    assert runtime.warm() == "active:1.0.0/small"
    later(monkeypatch, 60.0)
    assert runtime.serving == "active:1.0.0/small"
    assert runtime.ready


def test_a_release_that_can_only_abstain_is_not_ready_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundles.make_bundle(tmp_path / "b", models=ONE)
    whole = damage(made)
    runtime = Runtime(ladder_of(made))
    assert runtime.warm() == "last-resort/abstain"
    later(monkeypatch, 60.0)
    assert (runtime.serving, runtime.ready) == ("last-resort/abstain", False)
    assert runtime.infer({"x": X}).abstained
    (made.folder / "models" / "fp32.onnx").write_bytes(whole)
    later(monkeypatch, 600.0)
    assert runtime.warm() == "active:1.0.0/fp32"  # as a worker does by itself: nobody asks who is not ready
    assert runtime.ready
    assert runtime.infer({"x": X}).served_by == "active:1.0.0/fp32"


def refusing(folder: Path, **manifest: object) -> Bundle:
    """A bundle whose output guard lets no answer of its model pass."""
    output = Output(
        name="y", dtype="float32", shape=(-1, 3), kind="logits", guard=OutputGuard(minimum=900.0, maximum=901.0)
    )
    return bundles.make_bundle(folder, models=ONE, outputs=(output,), **manifest)


def test_a_slot_whose_guards_refuse_every_answer_is_not_ready(tmp_path: Path) -> None:
    faults: list[str] = []
    runtime = Runtime(ladder_of(refusing(tmp_path / "b")), on_fault=lambda *fault: faults.append(fault[2]))
    runtime.warm()
    for _ in range(FIRST_LOOK):
        assert runtime.ready
        assert runtime.infer({"x": X}).abstained
    assert (runtime.serving, runtime.ready) == ("last-resort/abstain", False)
    for _ in range(20):
        runtime.infer({"x": X})
    assert len(faults) == 1
    assert "own sample" in faults[0]


def test_a_client_whose_every_request_is_refused_does_not_make_the_slot_unready(tmp_path: Path) -> None:
    made = bundles.make_bundle(tmp_path / "b", models=[("fp32", bundles.nan_model())])
    runtime = Runtime(ladder_of(made))
    runtime.warm()
    for _ in range(3 * FIRST_LOOK):
        assert runtime.infer({"x": X * 1000}).abstained
        assert runtime.ready
    assert runtime.infer({"x": X}).served_by == "active:1.0.0/fp32"


def test_a_slot_that_was_found_mute_is_ready_again_by_an_answer_or_by_looking_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundles.make_bundle(tmp_path / "b", models=[("fp32", bundles.nan_model())])
    runtime = Runtime(ladder_of(made))
    runtime.warm()
    with monkeypatch.context() as spoiled:
        spoiled.setattr(LoadedRung, "answer", refuse)
        for _ in range(FIRST_LOOK):
            runtime.infer({"x": X * 1000})
        assert not runtime.ready
        later(spoiled, 60.0)
        runtime.warm()
        assert not runtime.ready
    later(monkeypatch, 120.0)
    assert runtime.warm() == "active:1.0.0/fp32"
    assert runtime.ready


def test_what_is_declared_instead_keeps_a_mute_slot_ready(tmp_path: Path) -> None:
    resort = LastResort(kind="constant", values=(1.0, 0.0, 0.0))
    runtime = Runtime(ladder_of(refusing(tmp_path / "b", last_resort=resort)))
    runtime.warm()
    for _ in range(FIRST_LOOK):
        assert runtime.infer({"x": X}).served_by == "last-resort/constant"
    assert (runtime.serving, runtime.ready) == ("last-resort/constant", True)


@pytest.mark.parametrize(
    ("resort", "serving"),
    [
        (LastResort(kind="constant", values=(1.0, 0.0, 0.0)), "last-resort/constant"),
        (LastResort(kind="constant", values=(1.0,)), "last-resort/abstain"),  # fits no output
        (LastResort(kind="last_value"), "last-resort/abstain"),  # there was none yet
    ],
)
def test_what_a_release_declares_instead_makes_it_ready(tmp_path: Path, resort: LastResort, serving: str) -> None:
    made = bundles.make_bundle(tmp_path / "b", models=ONE, last_resort=resort)
    damage(made)
    runtime = Runtime(ladder_of(made))
    assert runtime.warm() == serving
    assert runtime.ready == (serving != "last-resort/abstain")
    assert runtime.infer({"x": X}).served_by == serving


@pytest.mark.parametrize("path", [b"/v2/health/ready", b"/v2/models/linear/ready"])
def test_the_probes_say_so(tmp_path: Path, path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundles.make_bundle(tmp_path / "b", models=ONE)
    whole = damage(made)
    runtime = Runtime(ladder_of(made))
    runtime.warm()
    app = OipApp(AppState(runtime=runtime))
    answer = app.accept(RequestHead(method="GET", path=path, headers={}))
    with pytest.raises(HttpError) as refused:
        answer(b"")
    assert refused.value.response.status == 503
    assert "last-resort/abstain" in str(refused.value)
    (made.folder / "models" / "fp32.onnx").write_bytes(whole)
    later(monkeypatch, 60.0)
    runtime.warm()
    assert json.loads(answer(b"").body)["ready"] is True  # type: ignore[union-attr]
