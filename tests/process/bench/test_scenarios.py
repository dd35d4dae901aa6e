"""Scenarios on real models in real processes, and beside MLPerf's own LoadGen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.makers import onnx_models

from edge_bench.cli import bench
from edge_contracts.errors import MissingExtraError, OperatorError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    onnx_models.write_task(folder)
    return folder / "waves.onnx"


def measured(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(bench, [*map(str, words), "--json", "-"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_server_counts_what_is_late_and_says_valid(model: Path) -> None:
    words = ["--scenario", "server", "--seconds", 1.5, "--rate", 400]
    slow = measured(model, *words, "--deadline", 0.001)["subjects"][0]["run"]
    assert slow["late"] == slow["queries"] > 300
    assert not slow["judgement"]["valid"]
    assert "lower --rate" in slow["judgement"]["reasons"][0]
    fast = measured(model, *words, "--deadline", 1000)["subjects"][0]["run"]
    assert fast["late"] == 0
    assert fast["judgement"]["valid"], fast["judgement"]


def test_variants_of_a_sweep_are_subjects_with_metrics_and_raw_samples(model: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    task = model.with_name("waves.toml")
    report = measured(model, "--seconds", 0.3, "--sweep", "threads=1,2", "--task", task, "--raw", raw)
    assert [one["name"] for one in report["subjects"]] == ["waves threads=1", "waves threads=2"]
    for one in report["subjects"]:
        run = one["run"]
        assert run["percentiles"][0]["interval"]["low"] <= run["percentiles"][0]["ms"]
        assert run["memory"]["peak_mb"] >= run["memory"]["average_mb"] > 0
        assert run["cpu_ms"] > 0
        assert one["quality"]["interval"]["low"] <= one["score"] <= one["quality"]["interval"]["high"]
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    assert {line["subject"] for line in lines} == {"waves threads=1", "waves threads=2"}
    written = sum(len(line["ms"]) for line in lines if line["subject"] == "waves threads=1")
    assert written == report["subjects"][0]["run"]["queries"]


def test_what_does_not_go_together_is_refused(model: Path) -> None:
    for words, named in ((["--scenario", "server"], "--rate and --deadline"), (["--rate", "5"], "only the scenario")):
        with pytest.raises(OperatorError, match=named):
            measured(model, *words)


def test_loadgen_that_is_not_installed_is_named_with_its_extra(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_bench.scenarios.loadgen.MODULE", "no_such_loadgen")
    with pytest.raises(MissingExtraError, match="'loadgen'") as caught:
        measured(model, "--driver", "loadgen")
    assert "[loadgen]" in str(caught.value.hint)


@pytest.mark.parametrize(
    "words", [["single-stream"], ["multi-stream"], ["server", "--rate", 200, "--deadline", 500], ["offline"]]
)
def test_loadgen_drives_every_scenario(words: list[object], model: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="has no wheel here")
    run = measured(model, "--scenario", *words, "--seconds", 1, "--driver", "loadgen")["subjects"][0]["run"]
    assert run["loadgen"]["Result is"] in ("VALID", "INVALID")
    assert run["loadgen"]["Scenario"].lower() == str(words[0]).replace("-", "")
    assert run["samples"] > 0


def test_our_early_stopping_estimate_is_loadgen_s(model: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="has no wheel here")
    run = measured(model, "--seconds", 1, "--driver", "loadgen")["subjects"][0]["run"]
    said = next(value for name, value in run["loadgen"].items() if "Early stopping 90.0th percentile" in name)
    # theirs is of their latencies, ours of ours, which lack their overhead of some microseconds
    assert float(said) / 1e6 == pytest.approx(run["judgement"]["percentile_ms"], rel=0.5, abs=0.05)
    assert np.isfinite(float(said))
