"""The fleet's commands from the outside: JSON, exit codes, hints; and the export."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.makers import fleets
from support.makers.fleets import NOW, device_download

from edge_contracts.channel import Gates
from edge_contracts.errors import EdgewrightError
from edge_contracts.selector import Selector
from edge_contracts.shadow import ShadowSummary
from edge_contracts.state import Installed, ReportedState, SlotState
from edge_contracts.telemetry import Event
from edge_fleet.cli.fleet import fleet as fleet_command
from edge_fleet.database.telemetry import TelemetryStore
from edge_fleet.errors import FleetError, RepositoryError, RolloutError
from edge_fleet.releases.export import export, not_mounted
from edge_fleet.releases.release import add_family, release
from edge_fleet.signing.workspace import FleetWorkspace

TIME = "2026-11-22T06:00:00Z"


def run(*arguments: str | Path) -> Any:
    """Run a command with `--json` and return its one document; errors come out as they are."""
    result = CliRunner().invoke(fleet_command, [*map(str, arguments), "--json"], catch_exceptions=False)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def run_failing(*arguments: str | Path) -> BaseException:
    """Run a command and return the error it ends with."""
    result = CliRunner().invoke(fleet_command, [str(argument) for argument in arguments])
    assert result.exception is not None
    return result.exception


def test_the_whole_life_of_a_release_by_commands(tmp_path: Path) -> None:
    home = tmp_path / "fleet"
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        fleets.make_bundle(tmp_path / version, version=version, model=version.encode() * 1000)
    assert run("init", home, "--tenant", "acme")["tenant"] == "acme"
    released = run("release", home, tmp_path / "1.0.0")
    assert (released["model"], released["new"]) == ("har", True)
    channel = run(
        "rollout", "start", home, "--model", "har", "--version", "1.0.0", "--channel", "stable", "--percent", "10",
        "--select", "board=pi-4,pi-5", "--select", "tag.site=north", "--soak", "5", "--max-crashes", "1",
        "--window", "22:00-04:00", "--deadline", TIME, "--name", "first",
    )  # fmt: skip
    assert channel["candidate"]["manifest_sha256"] == released["manifest_sha256"]
    assert channel["selectors"][0] == {"fact": "board", "values": ["pi-4", "pi-5"], "at_least": None, "below": None}
    assert (channel["gates"]["soak_s"], channel["gates"]["max_crashes"]) == (5.0, 1)
    assert (channel["window"], channel["rollout"]) == ({"start": "22:00", "end": "04:00"}, "first")
    assert run("rollout", "pause", home)["paused"]
    assert not run("rollout", "resume", home)["paused"]
    assert run("rollout", "advance", home, "--percent", "100")["percentage"] == 100.0
    assert run("rollout", "finish", home)["stable"]["version"] == "1.0.0"
    run("release", home, tmp_path / "1.1.0")
    second = ("rollout", "start", home, "--model", "har", "--version", "1.1.0", "--channel", "stable")
    for wrong in ("hung", "hung=often", "hung=1/soon", "hung=0", "hung=1/5"):
        assert isinstance(run_failing(*second, "--retry", wrong), EdgewrightError)
    for wrong in ("board", "memory_mb>=much", "board>=pi-4", "battery_percent>=50", "memory_mb=900"):
        assert isinstance(run_failing(*second, "--select", wrong), EdgewrightError)
    conditions = ("--select", "memory_mb >= 900", "--select", "agent_version<2")
    channel = run(*second, *conditions, "--retry", "hung=2/7200", "--retry", "trial-latency=1")
    bounds = [(one["fact"], one["at_least"], one["below"]) for one in channel["selectors"]]
    assert bounds == [("memory_mb", "900", None), ("agent_version", None, "2")]
    assert channel["retries"] == [
        {"reason": "hung", "attempts": 2, "wait_s": 7200.0},
        {"reason": "trial-latency", "attempts": 1, "wait_s": 3600.0},
    ]
    assert len(run("rollout", "abort", home)["blocked"]) == 1
    run("release", home, tmp_path / "1.2.0")
    assert run("family", "floor", home, "har", "1.0.0")["minimum_version"] == "1.0.0"
    assert len(run("family", "revoke", home, "har", "1.1.0")["revoked"]) == 1
    assert run("family", "add", home, "other") == {"family": "other"}
    assert run("refresh", home) == {"signed": [], "missing": []}
    status = run("status", home)
    assert status["families"] == {"har": ["1.0.0", "1.1.0", "1.2.0"], "other": []}
    history = run("rollout", "status", home)["history"]
    assert [entry["verb"] for entry in history] == ["start", "pause", "resume", "advance", "finish", "start", "abort"]


def test_devices_and_rollout_status_show_what_was_reported(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    installed = Installed(version="1.0.0", manifest_sha256="0" * 64)
    slot = SlotState(
        slot="main",
        channel="stable",
        model="har",
        state="active",
        serving=installed,
        variant="int8",
        served_by="active",
        shadow=ShadowSummary(version="1.1.0", compared=200, agreement=0.985, low=0.957, high=0.995),
    )
    report = ReportedState(
        device="d", boot_id="b", sequence=1, time=TIME, agent_version="0", board="pc", architecture="x", slots=(slot,)
    )
    event = Event(device="d", boot_id="b", sequence=2, time=TIME, event="crash", severity="error", text="worker died")
    store = TelemetryStore(fleet.store_url)
    store.ingest([report, event], TIME)
    store.close()
    (device,) = run("devices", fleet.path)["devices"]
    assert (device["device"], device["level"], device["gaps"]) == ("d", "NORMAL", [[0, 1]])
    assert device["gap_count"] == 2
    assert device["slots"][0]["serving"]["version"] == "1.0.0"
    assert run("rollout", "status", fleet.path)["states"] == {"active": 1}
    assert run("rollout", "status", fleet.path)["in_wave"] == 1
    words = CliRunner().invoke(fleet_command, ["rollout", "status", str(fleet.path)], catch_exceptions=False).stdout
    assert "wave: 1 of 1 are in it" in words
    assert [found["event"] for found in run("events", fleet.path, "--device", "d")["events"]] == ["crash"]
    for command in (["devices"], ["events"], ["status"], ["rollout", "status"]):
        result = CliRunner().invoke(fleet_command, [*command, str(fleet.path)], catch_exceptions=False)
        assert result.exit_code == 0
        assert result.stdout
    shown = CliRunner().invoke(fleet_command, ["devices", str(fleet.path)], catch_exceptions=False).stdout
    assert "shadow: 98.5% of 200 agree" in shown


@pytest.mark.parametrize(
    ("option", "value"),
    [("--select", "board"), ("--select", "color=red"), ("--window", "25:00-26:00"), ("--percent", "101"),
     ("--deadline", "tomorrow"), ("--name", "a b"), ("--soak", "-1")],
)  # fmt: skip
def test_a_malformed_rollout_option_is_named_and_nothing_is_signed(tmp_path: Path, option: str, value: str) -> None:
    fleet = fleets.make_released(tmp_path)
    before = (fleet.repository / "metadata/timestamp.json").read_bytes()
    asked = ["--model", "har", "--version", "1.0.0", "--channel", "stable", option, value]
    error = run_failing("rollout", "start", fleet.path, *asked)
    assert not isinstance(error, AssertionError)
    assert (fleet.repository / "metadata/timestamp.json").read_bytes() == before


def test_a_channel_must_be_named_when_there_are_several_or_none(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    assert isinstance(run_failing("rollout", "pause", fleet.path), FleetError)
    fleets.start(fleet)
    assert isinstance(run_failing("rollout", "pause", fleet.path, "--channel", "other"), RolloutError)


def test_a_device_verifies_an_export_as_it_would_the_repository(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    assert run("export", fleet.path, tmp_path / "stick")["files"] > 8
    targets = ("channels/stable.json", "models/har/1.0.0/manifest.json")
    copied = device_download(fleet, tmp_path / "a", *targets, repository=tmp_path / "stick")
    assert copied == device_download(fleet, tmp_path / "b", *targets)
    blobs = {path.name for path in (tmp_path / "stick/blobs").glob("*/*")}
    assert blobs == {path.name for path in (fleet.repository / "blobs").glob("*/*")}


def test_an_export_for_one_model_leaves_the_others_out_and_still_verifies(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    add_family(fleet, "other", NOW)
    release(fleet, fleets.make_bundle(tmp_path / "b2", name="other", model=b"o" * 9), NOW)
    export(fleet, tmp_path / "stick", "har", NOW, lambda _done, _total: None)
    assert not (tmp_path / "stick/targets/models/other").exists()
    (manifest,) = device_download(fleet, tmp_path, "models/har/1.0.0/manifest.json", repository=tmp_path / "stick")
    assert manifest is not None


def test_a_second_export_copies_only_what_is_new(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    seen: list[tuple[int, int]] = []
    first = export(fleet, tmp_path / "stick", None, NOW, lambda done, total: seen.append((done, total)))
    assert first.copied == first.files
    assert seen[-1] == (first.bytes, first.bytes)
    fleets.start(fleet)
    second = export(fleet, tmp_path / "stick", None, NOW, lambda _done, _total: None)
    assert second.files == first.files + 1
    assert not any(item.name.endswith(".part") for item in (tmp_path / "stick").rglob("*"))


def test_an_export_is_one_consistent_state_although_a_rollout_starts_meanwhile(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    started: list[object] = []

    def interrupt(_done: int, _total: int) -> None:
        if not started:
            started.append(fleets.start(fleet))

    export(fleet, tmp_path / "stick", None, NOW, interrupt)
    assert device_download(fleet, tmp_path / "a", "channels/stable.json", repository=tmp_path / "stick") == [None]
    assert device_download(fleet, tmp_path / "b", "channels/stable.json") != [None]


def test_a_damaged_blob_is_not_exported(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    blob = next((fleet.repository / "blobs").glob("*/*"))
    blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(RepositoryError, match=blob.name):
        export(fleet, tmp_path / "stick", None, NOW, lambda _done, _total: None)
    assert not (tmp_path / "stick/metadata").exists()


def test_a_folder_with_other_things_is_not_exported_into(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    with pytest.raises(FleetError, match="not an export"):
        export(fleet, tmp_path, None, NOW, lambda _done, _total: None)
    with pytest.raises(FleetError, match="no such model family"):
        export(fleet, tmp_path / "stick", "nothing", NOW, lambda _done, _total: None)


def test_the_store_is_not_readable_by_others(tmp_path: Path) -> None:
    fleet = fleets.make_fleet(tmp_path)
    TelemetryStore(fleet.store_url).close()
    assert stat.S_IMODE((fleet.path / "fleet.db").stat().st_mode) & 0o077 == 0
    assert isinstance(FleetWorkspace(fleet.path), FleetWorkspace)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"percentage": 0.0}, "wave: 0 of 1 are in it (0 %)"),
        (
            {"selectors": (Selector(fact="memory_mb", at_least="900"),)},
            "wave: 0 of 1 are in it (memory_mb at least 900)",
        ),
        ({"selectors": (Selector(fact="board", values=("pc",)),)}, "wave: 1 of 1 are in it (board pc)"),
    ],
)
def test_a_wave_that_nobody_is_in_says_so(tmp_path: Path, plan: dict[str, Any], words: str) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet, **plan)
    slot = SlotState(slot="main", channel="stable", model="har")
    report = ReportedState(
        device="d", boot_id="b", sequence=1, time=TIME, agent_version="0", board="pc", architecture="x", slots=(slot,)
    )
    store = TelemetryStore(fleet.store_url)
    store.ingest([report], TIME)
    store.close()
    said = CliRunner().invoke(fleet_command, ["rollout", "status", str(fleet.path)], catch_exceptions=False).stdout
    assert words in said


def test_what_is_stable_on_one_channel_is_promoted_to_another_in_the_same_bytes(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet, gates=Gates(soak_s=7.0))
    promote = ("promote", fleet.path, "har", "1.0.0", "--from", "stable", "--to", "factory")
    early = run_failing(*promote)
    assert isinstance(early, RolloutError)
    assert "nothing is" in str(early)
    assert "rollout finish --channel stable" in str(early.hint)
    proved = run("rollout", "finish", fleet.path)
    channel = run(*promote, "--percent", "25")
    assert channel["candidate"] == proved["stable"]
    assert (channel["channel"], channel["percentage"], channel["gates"]["soak_s"]) == ("factory", 25.0, 7.0)
    history = run("rollout", "status", fleet.path, "--channel", "factory")["history"]
    assert [entry["verb"] for entry in history] == ["start"]


@pytest.mark.parametrize(
    "asked",
    [("har", "1.0.0", "--from", "dev"), ("har", "9.9.9", "--from", "stable"), ("x", "1.0.0", "--from", "stable")],
)
def test_what_is_not_proved_there_is_not_promoted(tmp_path: Path, asked: tuple[str, ...]) -> None:
    fleet = fleets.make_released(tmp_path)
    fleets.start(fleet)
    run("rollout", "finish", fleet.path)
    assert isinstance(run_failing("promote", fleet.path, *asked, "--to", "factory"), FleetError | EdgewrightError)
    assert run("rollout", "status", fleet.path)["channel"]["channel"] == "stable"  # the only one there is


def test_an_export_to_where_no_medium_is_mounted_is_told(tmp_path: Path) -> None:
    assert not_mounted(tmp_path / "stick" / "edgewright", [tmp_path])
    assert not not_mounted(tmp_path / "elsewhere", [tmp_path / "media"])
    assert not not_mounted(Path("/proc/edgewright"), [Path("/")])  # /proc is a mount
