"""Power cut at system calls of the real agent: a sample of what `make power-cuts` does at every one of them.

Each scenario is cut at evenly spread calls; the first and the last ones are always among them. That the injector finds
what it is for is shown by programs that are careless on purpose.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.disks.call_stops import EndedError, run_until, why_not
from support.disks.cut_disks import LOSSES, disks
from support.disks.disk_model import read_image, write_image
from support.sites.install_sites import ROOT

from edge_agent.storage.audit_log import AuditLog, verify_audit
from edge_agent.storage.durable import write_durably
from edge_agent.storage.state_dir import StateFolder
from edge_agent.update.record import UpdateRecord

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # other tests may have left an engine's threads
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Cut every scenario at a few points, in a process of its own: it forks, and must have one thread."""
    out = tmp_path_factory.mktemp("power") / "report.json"
    words = [
        sys.executable,
        str(ROOT / "tests" / "campaigns" / "power" / "power_cuts.py"),
        "--points",
        "5",
        "--out",
        str(out),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name", ["first", "update", "roll-back", "import", "garbage", "repair", "again", "outbox", "audit"]
)
def test_power_cut_at_any_call_leaves_a_device_that_goes_on(name: str, report: dict[str, Any]) -> None:
    (scenario,) = (scenario for scenario in report["scenarios"] if scenario["scenario"] == name)
    assert scenario["points"] == 5
    assert scenario["findings"] == []


# What the sample stands on


def test_child_is_ended_before_the_call_it_is_cut_at(tmp_path: Path) -> None:
    def act() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a").rename(tmp_path / "b")

    calls, cut = run_until(act, tmp_path, 1)
    assert (cut, [str(call) for call in calls]) == (True, ["mkdir a", "rename a -> b"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_failure_of_the_child_is_told(tmp_path: Path) -> None:
    def act() -> None:
        raise ValueError("its own fault")

    with pytest.raises(EndedError, match="its own fault"):
        run_until(act, tmp_path, None)


def test_model_knows_the_disk_exactly(tmp_path: Path) -> None:
    def act() -> None:
        write_durably(tmp_path / "record", b"one")
        with (tmp_path / "record").open("ab") as file:
            file.write(b" two")
        with (tmp_path / "record").open("r+b") as file:
            file.seek(2)
            file.write(b"E")
        (tmp_path / "link").symlink_to("record")
        (tmp_path / "folder" / "below").mkdir(parents=True)
        (tmp_path / "folder").rename(tmp_path / "moved")
        os.truncate(tmp_path / "record", 5)
        (tmp_path / "link").unlink()

    last = [image for _, image in disks(act, tmp_path)][-len(LOSSES)]
    assert last == read_image(tmp_path) == {"moved": None, "moved/below": None, "record": b"onE t"}


def test_rename_without_fsync_is_found_to_be_careless(tmp_path: Path) -> None:
    (tmp_path / "record").write_bytes(b"old")

    def act() -> None:
        (tmp_path / "record.new").write_bytes(b"new")
        (tmp_path / "record.new").replace(tmp_path / "record")

    found = {image.get("record") for _, image in disks(act, tmp_path)}
    assert found == {b"old", b"new", b"", b"n", b"\0\0\0"}


def test_durable_write_is_old_or_new_at_any_cut(tmp_path: Path) -> None:
    write_durably(tmp_path / "record", b"old")
    found = [(n, image["record"]) for n, image in disks(lambda: write_durably(tmp_path / "record", b"new"), tmp_path)]
    assert {content for _, content in found} == {b"old", b"new"}
    last = max(number for number, _ in found)
    assert {content for number, content in found if number == last} == {b"new"}


# What was found by it


def test_agent_that_was_cut_off_at_once_is_known_to_have_run(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    left = list(disks(state.mark_running, tmp_path))
    last = [image for number, image in left if number == left[-1][0]]
    assert len(last) == len(LOSSES)
    assert all("running.json" in image for image in last)


def test_deletion_that_is_cut_never_leaves_half_a_release_under_its_name(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    (state.releases / "r").mkdir()
    for name in ("manifest.json", "model"):
        (state.releases / "r" / name).write_bytes(b"x")
    left = [image for _, image in disks(lambda: state.collect_garbage(()) and None, tmp_path)]
    whole = [image for image in left if "releases/r" in image]
    assert 0 < len(whole) < len(left)
    for image in whole:
        assert {"releases/r/manifest.json", "releases/r/model"} <= image.keys()


def test_record_that_was_cut_while_it_was_written_leaves_nothing_for_ever(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    record = UpdateRecord(slot="main")
    left = list(disks(lambda: state.write_record(record), state.root))
    assert any(path.rpartition("/")[2].startswith(".") for _, image in left for path in image), "nothing was left over"
    for number, (_, image) in enumerate(left):
        after = StateFolder(tmp_path / f"after-{number}")
        write_image(image, after.root)
        after.collect_garbage(())
        assert not list(after.root.rglob(".*"))


def test_first_line_of_a_new_audit_log_is_durable(tmp_path: Path) -> None:
    def act() -> None:
        log = AuditLog(tmp_path / "state" / "audit.jsonl")
        log.append("started", 1.0)
        log.close()

    (tmp_path / "state").mkdir()
    left = list(disks(act, tmp_path / "state"))
    assert len([image for number, image in left if number == left[-1][0]]) == len(LOSSES)
    for index, (number, image) in enumerate(left):
        if number == left[-1][0]:
            write_image(image, tmp_path / f"after-{index}")
            assert verify_audit(tmp_path / f"after-{index}" / "audit.jsonl").serial == 1
