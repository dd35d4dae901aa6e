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
from edge_contracts.manifest import LastResort

X, _ = bundles.samples(2)
ONE = [("fp32", bundles.linear_model())]


def damage(bundle: Bundle, variant: str = "fp32") -> bytes:
    """Flip a bit of a variant; return what it was."""
    path = bundle.folder / "models" / f"{variant}.onnx"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    return before


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
