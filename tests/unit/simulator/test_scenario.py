"""What a scenario has in store for each device."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_contracts.errors import ContractError
from edge_fleet.errors import FleetError
from edgewright.simulator.scenario import FleetScenario, fate_of, read_scenario


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text("failng = 0.3\n")
    with pytest.raises(ContractError, match="failng"):
        read_scenario(file)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("failing = 1.5", "failing"),
        ("loss = 1.0", "loss"),
        ("latency_ms = -1", "latency_ms"),
        ("offline = 'x'", "offline"),
        ("seed = 1.5", "seed"),
        ("boards = []", "boards"),
        ("failing_by = 'luck'", "failing_by"),
    ],
)
def test_a_value_it_cannot_have_is_named(tmp_path: Path, line: str, key: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(line)
    with pytest.raises(ContractError, match=key):
        read_scenario(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"none\.toml"):
        read_scenario(tmp_path / "none.toml")


def test_shares_are_of_the_devices_and_the_same_for_the_same_seed() -> None:
    scenario = FleetScenario(failing=0.3, power_cuts=0.1, offline=1.0, offline_s=20.0, seed=4)
    fates = [fate_of(scenario, index) for index in range(2000)]
    assert fates == [fate_of(scenario, index) for index in range(2000)]
    assert 0.26 < sum(fate.fails for fate in fates) / 2000 < 0.34
    assert 0.08 < sum(fate.power_cut_in is not None for fate in fates) / 2000 < 0.12
    assert all(fate.away_at is not None and 0.0 <= fate.away_at <= 20.0 and fate.away_s <= 20.0 for fate in fates)
    others = [fate_of(FleetScenario(failing=0.3, seed=5), index) for index in range(2000)]
    assert [fate.fails for fate in others] != [fate.fails for fate in fates]


def test_one_share_changes_no_other() -> None:
    plain = [fate_of(FleetScenario(failing=0.5), index).fails for index in range(300)]
    assert [fate_of(FleetScenario(failing=0.5, offline=0.7, slow=0.2), index).fails for index in range(300)] == plain


def test_sites_and_boards_are_given_in_turns() -> None:
    scenario = FleetScenario(sites=3, boards=("pi-4", "pi-5"))
    assert [fate_of(scenario, index).site for index in range(4)] == ["site-0", "site-1", "site-2", "site-0"]
    assert [fate_of(scenario, index).board for index in range(3)] == ["pi-4", "pi-5", "pi-4"]
