"""Chains that remember: models that feed back and windows, composed into one bundle and run as a stream."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.makers import bundles
from support.makers.stream_bundles import frames, make_stream_bundle, right_answers

from edge_agent import Runtime
from edge_agent.inference.samples import write_arrays
from edge_agent.offline.compose import compose
from edge_agent.processing.pipeline_ops import slide
from edge_contracts.errors import BundleError, ContractError
from edge_contracts.manifest import Manifest

NOW = datetime(2026, 12, 1, tzinfo=UTC)
CHAIN = """\
name = "chain"
version = "1.0.0"
samples = "frames.npz"
[inputs.x]
dtype = "float32"
shape = [-1, 2]
[[nodes]]
kind = "model"
name = "feature.v1"
bundle = "remembering"
inputs = { x = "input/x" }
[[nodes]]
kind = "window"
name = "recent"
of = "feature.v1/y"
rows = 4
row = []
[[nodes]]
kind = "model"
name = "head"
bundle = "linear"
inputs = { x = "recent/window" }
[outputs.scores]
of = "head/y"
kind = "logits"
"""
STEPS = frames(6)


def right_scores(steps: Any) -> Any:
    """What the chain answers to a stream from its start: the classifier on the newest two features of two numbers."""
    window, found = np.zeros((1, 4), np.float32), []
    for y in right_answers(steps):
        window = np.concatenate([window, y], axis=1)[:, -4:]
        found.append(window @ bundles.WEIGHTS)
    return np.stack(found)


def composed(folder: Path, text: str = CHAIN, samples: Any = STEPS) -> Manifest:
    if not (folder / "linear").exists():
        bundles.make_bundle(folder / "linear")
        make_stream_bundle(folder / "remembering")
    write_arrays(
        folder / "frames.npz", {"input_0": np.asarray(samples).reshape(2, 3, 2) if samples is STEPS else samples}
    )
    (folder / "chain.toml").write_text(text)
    (folder / "out").mkdir()
    return compose(folder / "chain.toml", folder / "out", NOW)


def test_every_state_in_the_chain_is_one_of_the_bundle(tmp_path: Path) -> None:
    manifest = composed(tmp_path)
    assert {tensor.name: tensor.feedback for tensor in manifest.inputs if tensor.feedback} == {
        "feature.v1.state": "feature.v1.state_out",
        "recent.past": "recent.window",
    }
    assert [tensor.name for tensor in manifest.inputs if tensor.sampled] == ["x"]


def test_a_stream_through_the_chain_is_answered_as_worked_out_by_hand(tmp_path: Path) -> None:
    composed(tmp_path)
    with Runtime.open(tmp_path / "out") as runtime, runtime.stream() as stream:
        answers = [stream.infer({"x": step}) for step in STEPS]
        np.testing.assert_allclose([answer.outputs["scores"] for answer in answers], right_scores(STEPS), atol=1e-5)
        assert runtime.serving.endswith("/full")


def test_two_streams_do_not_touch(tmp_path: Path) -> None:
    composed(tmp_path)
    other = frames(6, seed=9)
    with Runtime.open(tmp_path / "out") as runtime, runtime.stream() as one, runtime.stream() as two:
        pairs = [(one.infer({"x": a}), two.infer({"x": b})) for a, b in zip(STEPS, other, strict=True)]
    np.testing.assert_allclose([a.outputs["scores"] for a, _ in pairs], right_scores(STEPS), atol=1e-5)
    np.testing.assert_allclose([b.outputs["scores"] for _, b in pairs], right_scores(other), atol=1e-5)


def test_the_golden_answers_are_of_whole_sequences(tmp_path: Path) -> None:
    manifest = composed(tmp_path)
    assert manifest.golden is not None
    with np.load(tmp_path / "out" / manifest.golden.file) as golden:
        found = golden["full/output_0"]
    np.testing.assert_allclose(found[1], right_scores(STEPS[3:])[:, 0], atol=1e-5)


def test_several_samples_in_a_step_are_refused(tmp_path: Path) -> None:
    composed(tmp_path)
    with Runtime.open(tmp_path / "out") as runtime:
        answer = runtime.infer({"x": np.zeros((2, 2), np.float32)})
    assert answer.abstained
    assert "2 samples in one step" in answer.warnings[0]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('of = "feature.v1/y"', 'of = "feature.v1/z"', "recent"),
        ("rows = 4", "rows = 3", "head"),
        ("row = []", "row = [3]", "recent"),
        ("row = []", "row = 3", "row"),
        ('kind = "logits"\n', 'kind = "logits"\n[outputs."recent.window"]\nof = "head/y"\n', "recent.window"),
        ("samples = ", 'metric = "top1"\nmin_score = 0.5\nsamples = ', "metric"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ContractError, match=named):
        composed(tmp_path, CHAIN.replace(old, new, 1))


def test_samples_that_are_no_sequences_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="sequences"):
        composed(tmp_path, samples=STEPS[:, 0])


def test_a_window_takes_in_whole_rows_of_any_spelling() -> None:
    past = np.zeros((1, 3, 2), np.float32)
    one = slide(past, np.array([[1, 2]], np.float32))
    assert one.tolist() == [[[0, 0], [0, 0], [1, 2]]]
    two = slide(one, np.arange(8, dtype=np.float32).reshape(1, 1, 4, 2))
    assert two.tolist() == [[[2, 3], [4, 5], [6, 7]]]
    with pytest.raises(ValueError, match="reshape"):
        slide(past, np.zeros((1, 3), np.float32))
