"""A slot whose record the disk does not take, and one whose candidate has to wait for a calmer box."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from support.makers.contract_examples import MANIFEST

from edge_agent.config.agent_toml import SlotConfig
from edge_agent.config.profiles import load_profile
from edge_agent.ipc.trial import TrialPlan
from edge_agent.storage.state_dir import StateFolder
from edge_agent.supervisor.slots.slot import Slot, Surroundings
from edge_agent.supervisor.slots.trial_process import TrialVerdict
from edge_agent.update.events import Restarted
from edge_agent.update.record import CandidateRelease, UpdateRecord
from edge_contracts.channel import Gates
from edge_contracts.state import Installed
from edge_contracts.turns import DeviceTurn

OLD, NEW = Installed(version="1.0.0", manifest_sha256="0" * 64), Installed(version="1.1.0", manifest_sha256="1" * 64)


def test_release_that_the_record_on_disk_still_names_is_kept_until_the_disk_takes_the_newer_record(
    tmp_path: Path,
) -> None:
    state = StateFolder(tmp_path)
    state.create()
    state.write_record(
        UpdateRecord(slot="main", state="active", serving=NEW, committed=False, last_good=OLD, starts=99)
    )
    in_the_way = state.slots / ".main.json.new"
    in_the_way.mkdir()

    async def run() -> None:
        profile = load_profile("x86-gateway")
        around = Surroundings(state=state, profile=profile, clock=lambda: 1e9, tell=lambda _: None, calm=lambda: True)
        slot = Slot(SlotConfig(name="main", http="127.0.0.1:0"), around)
        slot.apply(Restarted(clean=False))
        assert slot.record.serving == OLD
        assert state.read_record("main").serving == NEW
        assert slot.keeps() == {OLD.manifest_sha256, NEW.manifest_sha256}
        in_the_way.rmdir()
        slot.tick()
        assert state.read_record("main").serving == OLD
        assert slot.keeps() == {OLD.manifest_sha256}
        await slot.stop()

    asyncio.run(run())


@pytest.mark.parametrize(("clock", "known", "state"), [
    (1060.0, True, "trial"), (1060.0, False, "verified"), (1010.0, True, "verified"), (1500.0, True, "verified"),
    (500.0, True, "verified"), (1660.0, True, "verified"), (2260.0, True, "trial"),
])  # fmt: skip
def test_candidate_is_tried_in_the_turn_of_its_device_only(
    tmp_path: Path, clock: float, known: bool, state: str
) -> None:
    folder = StateFolder(tmp_path)
    folder.create()
    turn = DeviceTurn(begins=1000.0, turn_s=600.0, margin_s=30.0, index=0, of=2)
    candidate = CandidateRelease(
        manifest_sha256=NEW.manifest_sha256, model="m", version=NEW.version, channel="c", serial=1, turn=turn,
        gates=Gates(soak_s=100.0),
    )  # fmt: skip
    folder.write_record(UpdateRecord(slot="main", state="verified", candidate=candidate, deadline=2e9))

    async def run() -> None:
        around = Surroundings(
            state=folder, profile=load_profile("x86-gateway"), clock=lambda: clock, tell=lambda _: None,
            calm=lambda: True, clock_known=lambda: known,
        )  # fmt: skip
        slot = Slot(SlotConfig(name="main", http="127.0.0.1:0"), around)
        slot.apply(Restarted(clean=True))
        slot.tick()
        assert slot.record.state == state
        await slot.stop()

    asyncio.run(run())


def test_a_soak_that_outlasts_the_turn_is_left_for_the_next_one(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.create()
    turn = DeviceTurn(begins=1000.0, turn_s=600.0, margin_s=30.0, index=0, of=2)
    candidate = CandidateRelease(
        manifest_sha256=NEW.manifest_sha256, model="m", version=NEW.version, channel="c", serial=1, turn=turn
    )
    folder.write_record(
        UpdateRecord(
            slot="main", state="active", serving=NEW, committed=False, last_good=OLD, candidate=candidate, deadline=2e9
        )
    )
    clock = 1500.0

    async def run() -> None:
        nonlocal clock
        around = Surroundings(
            state=folder, profile=load_profile("x86-gateway"), clock=lambda: clock, tell=lambda _: None,
            calm=lambda: True,
        )  # fmt: skip
        slot = Slot(SlotConfig(name="main", http="127.0.0.1:0"), around)
        slot.tick()
        assert slot.record.state == "active"
        clock = 1571.0
        slot.tick()
        assert (slot.record.state, slot.record.serving, slot.record.rejected) == ("verified", OLD, ())
        await slot.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("number", "state"),
    [(errno.EAGAIN, "active"), (errno.ENOMEM, "active"), (errno.EMFILE, "active"), (errno.ENOENT, "rejected")],
)
def test_box_that_cannot_start_a_trial_now_says_nothing_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    folder = StateFolder(tmp_path)
    folder.create()
    candidate = CandidateRelease(
        manifest_sha256=NEW.manifest_sha256, model="m", version=NEW.version, channel="c", serial=1
    )
    folder.write_record(UpdateRecord(slot="main", state="trial", candidate=candidate, deadline=2e9))
    tries, waited = list[str](), list[float]()

    async def try_release(plan: TrialPlan, *_: object) -> TrialVerdict:
        tries.append(plan.folder)
        if len(tries) < 4:
            raise OSError(number, "now")
        return TrialVerdict(usable=("fp32",))

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(StateFolder, "read_manifest", lambda *_: MANIFEST)
    monkeypatch.setattr("edge_agent.supervisor.slots.slot.try_release", try_release)
    monkeypatch.setattr("edge_agent.supervisor.slots.slot.asyncio.sleep", sleep)

    async def run() -> None:
        profile = load_profile("x86-gateway")
        around = Surroundings(state=folder, profile=profile, clock=lambda: 1e9, tell=lambda _: None, calm=lambda: True)
        slot = Slot(SlotConfig(name="main", http="127.0.0.1:0"), around)
        await slot._try(NEW.manifest_sha256)
        assert slot.record.state == state
        await slot.stop()

    asyncio.run(run())
    assert waited == ([10.0] * 3 if state == "active" else [])


def test_candidate_waits_for_its_trial_until_the_box_is_calm(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    candidate = CandidateRelease(
        manifest_sha256=NEW.manifest_sha256, model="m", version=NEW.version, channel="c", serial=1
    )
    state.write_record(UpdateRecord(slot="main", state="verified", candidate=candidate, deadline=2e9))
    calm = False

    async def run() -> None:
        nonlocal calm
        profile = load_profile("x86-gateway")
        around = Surroundings(state=state, profile=profile, clock=lambda: 1e9, tell=lambda _: None, calm=lambda: calm)
        slot = Slot(SlotConfig(name="main", http="127.0.0.1:0"), around)
        slot.apply(Restarted(clean=True))
        slot.tick()
        assert slot.record.state == "verified"
        calm = True
        slot.tick()
        assert slot.record.state == "trial"
        await slot.stop()

    asyncio.run(run())
