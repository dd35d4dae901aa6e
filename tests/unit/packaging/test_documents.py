"""The documents speak of what exists: commands and options, files, decisions and the tests they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support.sites.install_sites import ROOT

from edgewright.commands import edgewright

ROOMS = ("docs", "compression", "benchmarks")
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in [*ROOT.glob("*.md"), *(found for room in ROOMS for found in (ROOT / room).rglob("*.md"))]
)
LINK = r"\]\(([^)#]+)[^)]*\)"
TEST_FILE = r"`(tests/[\w/]+/test_\w+\.py)`"
THREATS = ROOT / "docs" / "threat-model.md"


def commands(document: Path) -> Iterator[list[str]]:
    """Yield the words of every `edgewright ...` line in a document's code blocks."""
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / document).read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.strip().startswith("edgewright "):
                yield shlex.split(line, comments=True)[1:]


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the click command that `words` name, and the words left for it."""
    command: click.Command = edgewright
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, f"no such command: edgewright {' '.join(words)}"
        command = found
        rest.pop(0)
    return command, rest


def test_there_are_commands_links_and_names_of_tests_to_look_at() -> None:
    text = "".join((ROOT / document).read_text() for document in DOCUMENTS)
    assert len(DOCUMENTS) > 60
    assert sum(len(list(commands(document))) for document in DOCUMENTS) > 100
    assert len(re.findall(LINK, text)) > 200
    assert len(re.findall(TEST_FILE, text)) > 30


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_in_documents_exist_with_their_options(document: Path) -> None:
    for words in commands(document):
        command, rest = resolve(words)
        options = {name for parameter in command.params for name in parameter.opts}
        unknown = [word for word in rest if word.startswith("--") and word not in options]
        assert not unknown, f"edgewright {' '.join(words)}: {unknown}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(LINK, text):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / document).parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_test_files_that_documents_name_exist(document: Path) -> None:
    for path in re.findall(TEST_FILE, (ROOT / document).read_text()):
        assert (ROOT / path).exists(), path


def test_every_test_the_threat_model_names_exists() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", THREATS.read_text()))
    assert named
    assert named <= defined, sorted(named - defined)


def test_every_threat_has_a_test_or_says_that_it_has_none() -> None:
    rows = [line for line in THREATS.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    claims = [row for row in rows if not row.startswith("| attack")]
    assert len(claims) > 20
    for row in claims:
        assert "`test_" in row or "not covered yet" in row, row


def test_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for room in re.findall(r"^\| `(edge\w+)` \|(.*)\|$", text, re.MULTILINE):
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", room[1]):
            assert (folder_of(room[0]) / name).exists(), f"{room[0]}/{name}"
    named = re.findall(r"`((?:edge\w+|compression|firmware_configs)/[\w/.]+)`", text)
    assert len(named) > 30
    for name in named:
        room, _, rest = name.partition("/")
        assert (folder_of(room) / rest).exists(), name


def folder_of(room: str) -> Path:
    """Return the folder of a package or of a plain project folder."""
    return next(found for place in ("", "compression", "benchmarks") if (found := ROOT / place / room).is_dir())


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
