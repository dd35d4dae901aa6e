"""`edgewright example` shows every shipped file, byte for byte; the units' commands are commands of today."""

from __future__ import annotations

import importlib

import click
import pytest
from click.testing import CliRunner
from support.parts.device_files import CONFIGS, SERVICES, UNIT, command_of, service_unit

from edgewright.commands import edgewright
from edgewright.examples import example, example_files


def test_every_shipped_file_can_be_shown() -> None:
    listed = CliRunner().invoke(example, []).stdout.splitlines()
    assert listed == sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*") if path.is_file())
    for name in listed:
        assert CliRunner().invoke(example, [name]).stdout == (CONFIGS / name).read_text()


def test_the_end_of_a_name_is_enough_where_it_is_the_only_one() -> None:
    assert CliRunner().invoke(example, ["edgewright-agent.service"]).stdout == UNIT.read_text()
    assert CliRunner().invoke(example, ["pi-4.toml"]).stdout == example_files()["profiles/pi-4.toml"].read_text()


@pytest.mark.parametrize("name", ["none", "../pyproject.toml", "service", ""])
def test_other_names_are_refused_with_the_way_to_the_list(name: str) -> None:
    done = CliRunner().invoke(example, [name])
    assert done.exit_code == 2
    assert "`edgewright example` lists them" in done.output


@pytest.mark.parametrize("name", SERVICES)
def test_units_of_the_fleets_services_start_commands_and_options_of_today(name: str) -> None:
    group, command, *words = command_of(service_unit(name))
    fleet = edgewright.get_command(click.Context(edgewright), group)
    assert isinstance(fleet, click.Group)
    found = fleet.get_command(click.Context(fleet), command)
    assert found is not None
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert importlib.import_module("edge_fleet.identity.authority").SERVICES[SERVICES.index(name)][:4] == name[:4]
