"""Controllers sweep old telemetry in parts; one of them at a time."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from support.makers.fleets import make_fleet

from edge_contracts.telemetry import TelemetryWindow
from edge_fleet.controller.keeping import SWEEP_AGAIN_S, Keeping
from edge_fleet.database import retention
from edge_fleet.database.telemetry import TelemetryStore


def test_one_controller_sweeps_part_after_part_and_the_other_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    fleet = make_fleet(tmp_path / "fleet")
    old = (datetime.now(UTC) - timedelta(days=8)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    one_window = TelemetryWindow(device="d", boot_id="b", sequence=0, start=old, end=old, slot="main")
    windows = [msgspec.structs.replace(one_window, sequence=number) for number in range(5)]
    lines: list[str] = []
    with (
        contextlib.closing(TelemetryStore(fleet.store_url)) as store,
        contextlib.closing(Keeping(fleet, fleet.store_url, "one", lines.append)) as one,
        contextlib.closing(Keeping(fleet, fleet.store_url, "other", lines.append)) as other,
    ):
        store.ingest(windows, old)
        one.look(0.0)
        other.look(0.0)
        assert store.count_messages("window") == 3
        one.look(SWEEP_AGAIN_S / 2)
        assert store.count_messages("window") == 3
        one.look(SWEEP_AGAIN_S)
        one.look(2 * SWEEP_AGAIN_S)
        assert store.count_messages("window") == 0
    assert lines == []
