"""A search that is killed, resumed or shared: what was finished is not done again, at most what was running is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.makers import onnx_models

from edge_agent.bundle import open_bundle

ROOT = Path(__file__).resolve().parents[4]
SPACED = """
summary = "per tensor, and per channel as the search likes"
rank = 90
[[passes]]
pass = "simplify"
[[passes]]
pass = "compact"
[[passes]]
pass = "static_int8"
per_channel = false
reduce_range = true
[[passes]]
pass = "bias_correction"
[space.static_int8]
per_channel = [false, true]
calibrator = ["minmax", "percentile"]
percentile = { low = 99.0, high = 99.99 }
[space.bias_correction]
use = [true, false]
"""
JUDGED = re.compile(r"^(\S+): .*; front: ")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    onnx_models.write_task(tmp_path, count=200)
    (tmp_path / "recipes").mkdir()
    for name in ("float", "int8-dynamic", "int8-pc-minmax-rr"):
        shutil.copy(ROOT / "compression" / "recipes" / f"{name}.toml", tmp_path / "recipes")
    (tmp_path / "recipes" / "spaced.toml").write_text(SPACED)
    return tmp_path


def start(place: Path, out: str, *more: str) -> subprocess.Popen[str]:
    words = ["compress", str(place / "waves.toml"), "--profile", "x86-gateway", "--out", str(place / out), "--json"]
    # Beside a limit of latency no candidate rules out another one: all that is written is tried.
    words += ["--recipes", str(place / "recipes"), "--max-drop", "2", "--max-latency", "1000", "--budget", "10m"]
    words += ["--verbose", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "edgewright.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(running: subprocess.Popen[str]) -> tuple[dict[str, Any], list[str]]:
    out, said = running.communicate()
    assert running.returncode == 0, said
    return json.loads(out), said.splitlines()


def built(said: list[str]) -> set[str]:
    return {line.removeprefix("building ") for line in said if line.startswith("building ")}


def waits() -> Iterator[None]:
    """Wait a moment at each step, for a minute at most."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        yield
        time.sleep(0.01)


def judged(said: list[str]) -> set[str]:
    found = {line.removeprefix("scoring ") for line in said if line.startswith("scoring ")}
    assert found, "nothing was scored, or it is told in other words"
    return found


@pytest.mark.timeout(600)
def test_a_killed_search_goes_on_where_it_was(place: Path) -> None:
    finished: list[str] = []
    with start(place, "bundle", "--variations", "2") as killed:
        assert killed.stderr is not None
        for line in iter(killed.stderr.readline, ""):
            found = JUDGED.match(line)
            finished += [found[1]] if found else []
            if len(finished) == 2:
                break
        assert len(finished) == 2
        children = next(
            filter(None, (psutil.Process(killed.pid).children() for _ in waits()))
        )  # between two there is none
        os.kill(killed.pid, signal.SIGKILL)  # the search alone: what it started ends with it
    assert not psutil.wait_procs(children, timeout=60)[1]
    assert not (place / "bundle").exists()

    report, said = finish(start(place, "bundle", "--variations", "2"))
    assert any(re.match(r"reusing [2-9] finished candidates", line) for line in said)
    by_id = {one["id"]: one for one in report["candidates"]}
    assert all(by_id[name]["taken_over"] for name in finished)
    assert not built(said) & {"float", *finished}
    # What was running when it was killed is tried again; nothing is missing in the end.
    assert {"float", "int8-dynamic", "int8-pc-minmax-rr", "spaced"} <= {
        name for name, one in by_id.items() if one["status"] != "not tried"
    }
    varied = [one for one in report["candidates"] if re.search(r"-v[0-9a-f]{6}$", one["id"])]
    assert varied
    assert all("varied:" in one["summary"] for one in varied)
    assert open_bundle(place / "bundle", verify=True).manifest.variants[-1].id == "float"
    assert not (place / "bundle.search").exists()


@pytest.mark.timeout(600)
def test_two_searches_share_one_study_and_its_work(place: Path) -> None:
    storage = f"sqlite:///{place / 'shared.db'}"
    both = [
        start(place, name, "--storage", storage, "--work", str(place / f"work-{name}"), "--variations", "0")
        for name in ("a", "b")
    ]
    (first, said), (second, other) = (finish(one) for one in both)
    # What one of them has judged the other may build, to time it beside its own.
    assert judged(said) & judged(other) <= {"float"}, "tried twice"
    for report in (first, second):
        assert {one["id"] for one in report["candidates"]} >= {"float", "int8-dynamic", "spaced"}
        assert report["ladder"][-1] == "float"
    assert any(one["taken_over"] for report in (first, second) for one in report["candidates"])


def test_a_database_that_cannot_be_opened_is_named(place: Path) -> None:
    with start(place, "none", "--storage", "nosuchdb://x/y") as running:
        _, said = running.communicate()
    assert running.returncode == 2
    assert "--storage" in said
