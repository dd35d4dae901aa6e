"""The help of every command: it starts with an imperative, has an example that works, and says what options set."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from edgewright.commands import edgewright

IMPERATIVES = {
    "Abort", "Add", "Allow", "Apply", "Approve", "Check", "Combine", "Compare", "Compress", "Create", "Demonstrate",
    "Diagnose", "Enroll", "Explain", "Export", "Forbid", "Import", "Inspect", "List", "Make", "Manage", "Measure",
    "Pause", "Promote", "Re-sign", "Redo", "Remove", "Replace", "Replay", "Resume", "Revoke", "Run", "Score", "Serve",
    "Set", "Show", "Sign", "Simulate", "Start", "Verify", "Widen",
}  # fmt: skip
NUMBERS = ("float", "integer", "float range", "integer range")
UNITS = re.compile(
    r"\b([Ss]econds?|ms|MB|MiB|days?|percent|points|bytes|0 to 1"
    r"|Number|[Mm]aximum|Minimum|ID|threads|confidence|differences)\b|MiB/s"
)
NAME_WIDTH = 14
"""Columns a list of commands gives to the longest name and its margins; the rest of 78 is the one-line help's."""


def walk(
    command: click.Command, path: tuple[str, ...], ctx: click.Context | None
) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        inner = click.Context(command, info_name=path[-1], parent=ctx)
        for name in command.list_commands(inner):
            found = command.get_command(inner, name)
            assert found is not None
            yield from walk(found, (*path, name), inner)


COMMANDS = dict(walk(edgewright, ("edgewright",), None))
each_command = pytest.mark.parametrize("path", COMMANDS)


def help_of(path: str) -> str:
    return inspect.cleandoc(COMMANDS[path].help or "")


@each_command
def test_help_starts_with_an_imperative(path: str) -> None:
    help_text = help_of(path)
    assert help_text.split()[0].rstrip(",") in IMPERATIVES, help_text[:60]


@each_command
def test_help_has_an_example_of_this_very_command(path: str) -> None:
    examples = [line.strip() for line in help_of(path).splitlines() if line.startswith("  edgewright ")]
    path = path.replace("enrolment", "enrollment")
    assert any(line == path or line.startswith(f"{path} ") for line in examples), path


@each_command
def test_examples_use_options_that_exist(path: str) -> None:
    text = help_of(path).replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("  edgewright "):
            for part in line.split("&&"):
                words = shlex.split(part)
                command, rest = longest(words)
                known = {name for parameter in command.params for name in parameter.opts}
                assert {word for word in rest if word.startswith("--")} <= known, line


def longest(words: list[str]) -> tuple[click.Command, list[str]]:
    for length in range(len(words), 0, -1):
        if " ".join(words[:length]) in COMMANDS:
            return COMMANDS[" ".join(words[:length])], words[length:]
    raise AssertionError(words)


@each_command
def test_one_line_help_is_not_cut_off(path: str) -> None:
    assert not COMMANDS[path].get_short_help_str(78 - NAME_WIDTH).endswith("..."), path


@each_command
def test_every_option_says_what_it_sets(path: str) -> None:
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            text = option.help or ""
            assert text[:1].isupper() or text.startswith(("live:", "$")), f"{path} {option.opts}: {text}"
            assert text.endswith("."), f"{path} {option.opts}: {text}"


@each_command
def test_every_number_has_a_unit(path: str) -> None:
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option) and option.type.name in NUMBERS:
            assert UNITS.search(option.help or ""), f"{path} {option.opts}: {option.help}"


@each_command
def test_every_optional_value_tells_its_default(path: str) -> None:
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option) and not (option.required or option.is_flag or option.show_default):
            text = option.help or ""
            told = "default" in text or "repeated" in text or option.name in OPTIONAL
            assert told, f"{path} {option.opts}: {text}"


OPTIONAL = {
    "advance", "ca_file", "cache_mb", "certificate_file", "config", "deadline", "key_file", "max_latency", "max_memory",
    "max_size", "mode", "out", "passphrase_file", "password_file", "percent", "plan_file", "state", "task_file",
    "json_to", "token", "trusted", "upstream", "username", "who", "window",
}  # fmt: skip
"""Options whose absence means that nothing of the kind happens: no limit, no file, no credentials."""


def test_the_first_spelling_of_the_enrollment_service_works_and_is_not_listed() -> None:
    fleet = COMMANDS["edgewright fleet"]
    assert isinstance(fleet, click.Group)
    context = click.Context(fleet, info_name="fleet")
    alias = fleet.get_command(context, "enrolment")
    assert alias is not None
    assert alias.hidden
    assert alias.params == COMMANDS["edgewright fleet enrollment"].params
    assert "enrolment " not in fleet.get_help(context)
