"""Traps of the layout: Python 3.14's standard package `compression`, test packages, commands without an example."""

from __future__ import annotations

import click
import pytest
from support.sites.install_sites import ROOT

from edgewright.commands import COMMANDS, EXTRAS, LazyGroup, edgewright


@pytest.mark.parametrize("folder", ["compression", "benchmarks"])
def test_a_plain_project_folder_never_becomes_a_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()  # docs/decisions/0004-compression-folder.md


def test_no_test_folder_is_a_package_or_named_like_a_standard_one() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not (ROOT / "tests" / "compression").exists()


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_shows_an_example(name: str) -> None:
    group = edgewright
    assert isinstance(group, LazyGroup)
    context = click.Context(group, info_name="edgewright")
    command = group.get_command(context, name)
    assert command is not None
    assert "Example" in command.get_help(click.Context(command, info_name=name, parent=context))


def leaves(command: click.Command, context: click.Context) -> list[tuple[click.Command, click.Context]]:
    """Return every command below `command` that is no group, each with its context."""
    if not isinstance(command, click.Group):
        return [(command, context)]
    found = []
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        found += leaves(below, click.Context(below, info_name=name, parent=context))
    return found


def test_every_sub_command_explains_itself_and_its_options() -> None:
    for command, context in leaves(edgewright, click.Context(edgewright, info_name="edgewright")):
        assert command.help, context.command_path
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.help, f"{context.command_path} {option.opts[0]}"


def test_only_the_engineers_commands_need_an_extra() -> None:
    assert set(COMMANDS) - set(EXTRAS) == {"agent", "bundle", "example"}
