"""What is installed on a device beside the package: profiles, agent.toml, systemd unit, container file."""

from __future__ import annotations

import importlib
import re
import tomllib

import pytest
from support.parts.device_files import CONFIGS, UNIT
from support.sites.install_sites import PACKAGES, ROOT

from edge_contracts.profile import DeviceProfile, parse_profile

PROFILES = ["armv7-generic", "jetson-orin-nano", "pi-3b", "pi-4", "pi-5", "pi-zero-2w", "x86-gateway"]
AGENT_MB = 110  # supervisor and worker with one small model, docs/decisions/0002-processes-on-the-device.md


def profile(name: str) -> DeviceProfile:
    return parse_profile(tomllib.loads((CONFIGS / "profiles" / f"{name}.toml").read_text()))


def test_the_profiles_are_the_documented_ones() -> None:
    assert sorted(path.stem for path in (CONFIGS / "profiles").iterdir()) == PROFILES


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_loads_and_names_its_source(name: str) -> None:
    board = profile(name).board
    assert profile(name).name == name
    assert len(board.source) > 20
    assert board.features


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_leaves_room_for_the_agent_and_an_update(name: str) -> None:
    device = profile(name)
    assert AGENT_MB + 2 * device.model.memory_mb <= device.board.memory_mb
    assert device.model.threads <= device.board.cores
    disk = device.governor.disk_free_mb
    assert disk is not None
    assert disk.critical >= 2 * device.model.disk_mb  # the new release beside the last good one


@pytest.mark.parametrize(
    ("name", "throttles_c"),
    [
        ("pi-zero-2w", 80),
        ("pi-3b", 80),
        ("pi-4", 80),
        ("pi-5", 80),
        ("armv7-generic", 80),
        ("jetson-orin-nano", 95),
        ("x86-gateway", 105),
    ],
)
def test_the_governor_acts_before_the_board_throttles(name: str, throttles_c: float) -> None:
    threshold = profile(name).governor.temperature_c
    assert threshold is not None
    assert threshold.critical < throttles_c


def test_32_bit_arm_uses_the_only_engine_that_has_a_wheel() -> None:
    assert profile("armv7-generic").engines == ("litert",)


def test_the_example_configuration_is_accepted() -> None:
    config = importlib.import_module("edge_agent.config.agent_toml").load_config(CONFIGS / "agent.toml")
    assert config.slots[0].channel == "wrist"


def test_every_commented_line_of_the_example_is_a_field_of_today() -> None:
    """Uncommenting everything must still load: the comments are documentation that cannot go stale."""
    parse = importlib.import_module("edge_agent.config.agent_toml").parse_config
    text = (CONFIGS / "agent.toml").read_text()
    parse(tomllib.loads(re.sub(r"^# (\[|[a-z_0-9]+ = )", r"\1", text, flags=re.MULTILINE)))


@pytest.mark.parametrize(
    "line",
    [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "DynamicUser=yes",
        "Type=notify",
        "WatchdogSec=30",
        "CapabilityBoundingSet=",
    ],
)
def test_the_unit_keeps_its_promises(line: str) -> None:
    assert line in UNIT.read_text().splitlines()
    assert "MALLOC_ARENA_MAX=2" in UNIT.read_text()


def test_the_container_file_copies_every_package() -> None:
    text = (CONFIGS / "container" / "Containerfile").read_text()
    for source in PACKAGES.values():
        assert f"COPY {source.relative_to(ROOT).parts[0]} " in text
