"""`bench gate` and `bench history` on real models, processes and commits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.makers import onnx_models

from edge_bench.cli import bench
from edge_bench.commands.gate import FAILED
from edge_contracts.errors import OperatorError


def gated(*words: object) -> tuple[int, dict[str, str]]:
    done = CliRunner().invoke(bench, ["gate", *map(str, words), "--json", "-"], catch_exceptions=False)
    found = json.loads(done.stdout)
    return done.exit_code, {one["what"]: one["verdict"] for one in found["checks"]} | {"all": found["verdict"]}


def test_a_budget_is_kept_or_broken_with_its_own_exit_code(tmp_path: Path) -> None:
    onnx_models.write_task(tmp_path)
    model = tmp_path / "waves.onnx"
    code, checks = gated(model, "--budget", "pi-5", "--seconds", "0.2")
    assert (code, checks["all"]) == (0, "pass")
    tight = tmp_path / "tight.toml"
    profile = Path(__file__).parents[3] / "firmware_configs" / "profiles" / "pi-5.toml"
    tight.write_text(profile.read_text().replace("\n[model]\n", "\n[model]\nlatency_ms = 0.0001\n"))
    code, checks = gated(model, "--budget", tight, "--seconds", "0.2")
    assert (code, checks["latency p50"]) == (FAILED, "fail")


def test_a_model_is_held_against_itself_at_a_commit(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    onnx_models.write_task(tmp_path)
    task, model = tmp_path / "waves.toml", tmp_path / "waves.onnx"
    git("init", "-q")
    git("add", "waves.onnx")
    git("commit", "-qm", "model")
    _, checks = gated(model, "--against", "HEAD", "--task", task, "--seconds", "0.1", "--slower", 1000, "--growth", 500)
    assert checks == {"slower": "pass", "memory growth": "pass", "top1 lost": "pass", "all": "pass"}
    model.write_bytes(model.read_bytes()[:100])  # the head no longer loads
    with pytest.raises(OperatorError, match="--against nowhere"):
        gated(model, "--against", "nowhere", "--seconds", "0.1")


def test_a_pointer_of_git_lfs_is_no_model(tmp_path: Path) -> None:
    from edge_bench.decisions.at_ref import at_ref

    model = tmp_path / "m.onnx"
    model.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    with pytest.raises(OperatorError, match="Git LFS"):
        at_ref(model, "HEAD", tmp_path / "out")


def test_kept_reports_are_a_history_and_a_baseline(tmp_path: Path) -> None:
    onnx_models.write_task(tmp_path)
    model, kept = tmp_path / "waves.onnx", tmp_path / "kept"
    for _ in range(2):
        words = [str(model), "--seconds", "0.2", "--history", str(kept)]
        assert CliRunner().invoke(bench, words, catch_exceptions=False).exit_code == 0
    files = sorted(kept.glob("*.json"))
    assert len(files) == 2
    done = CliRunner().invoke(bench, ["history", str(kept), "--json", "-"], catch_exceptions=False)
    entries = json.loads(done.stdout)["entries"]
    assert [one["subject"] for one in entries] == ["waves", "waves"]
    assert entries[0]["change"] == "first"
    assert entries[1]["low"] <= entries[1]["ratio"] <= entries[1]["high"]
    code, checks = gated(files[1], "--baseline", files[0], "--slower", 1000, "--growth", 500)
    assert (code, checks["all"]) == (0, "pass")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OperatorError, match="holds no reports"):
        CliRunner().invoke(bench, ["history", str(tmp_path / "empty")], catch_exceptions=False)
