"""Which of a model's outputs a task judges, and what is said where it is the wrong one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.ports import TensorInfo
from edge_bench.judged import AnswerJudge, manifest_inputs
from edge_bench.task import read_task
from edge_contracts.errors import OperatorError

TASK = 'name = "t"\nmodel = "t.onnx"\nmetric = "top1"\n[data]\nfile = "t.npz"\n[input]\ndtype = "float32"\n'


def test_a_classifier_whose_first_output_is_the_label_is_told_to_name_the_other(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(TASK)
    (tmp_path / "t.onnx").write_bytes(b"")
    np.savez(tmp_path / "t.npz", x=np.zeros((6, 3), np.float32), y=np.arange(6) % 2)
    task = read_task(tmp_path / "t.toml")
    outputs = [
        TensorInfo(name="label", dtype="int64", shape=(-1,)),
        TensorInfo(name="probabilities", dtype="float32", shape=(-1, 2)),
    ]
    inputs = manifest_inputs(task, [TensorInfo(name="x", dtype="float32", shape=(-1, 3))])
    judge = AnswerJudge(task, inputs, outputs)
    first = judge.judged[0]
    assert first.name == "label"
    with pytest.raises(OperatorError, match="takes a score for each class") as refused:
        first.table(np.zeros(6, np.int64), first.truth)
    assert refused.value.hint is not None
    assert "[[outputs]]" in refused.value.hint
    assert "probabilities" in refused.value.hint
