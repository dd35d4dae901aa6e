"""Every word a user meets in `--help` or the README is common English, known to every Linux user, or in the glossary.

`common_words.txt` is the kept list of common English. A new word fails here until somebody decides: a term gets a line
in docs/glossary.md, a common word goes into the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
from support.sites.install_sites import ROOT

from edgewright.commands import edgewright

GLOSSARY = ROOT / "docs" / "glossary.md"
COMMON = set((Path(__file__).parent / "common_words.txt").read_text().split())
LINUX = {
    "apache",
    "benchmark",
    "changelog",
    "config",
    "cpu",
    "ctrl",
    "db",
    "demo",
    "dir",
    "dns",
    "doc",
    "download",
    "encrypt",
    "gb",
    "gpu",
    "http",
    "ip",
    "lib",
    "linux",
    "loopback",
    "max",
    "mb",
    "mib",
    "offline",
    "ok",
    "passphrase",
    "posix",
    "runtime",
    "signer",
    "standalone",
    "systemd",
    "ubuntu",
    "unsynced",
    "url",
    "usb",
    "utc",
}
NAMES = {"arm", "edgewright", "efficientnet", "fastapi", "mender", "mlserver", "olive", "pykcs", "raspberry"}
ENDINGS = [
    ("", ""),
    ("s", ""),
    ("es", ""),
    ("ies", "y"),
    ("ed", ""),
    ("ed", "e"),
    ("ing", ""),
    ("ing", "e"),
    ("ied", "y"),
]
ENDINGS += [("ly", ""), ("ped", "p"), ("ping", "p"), ("ting", "t")]
README_WORDS = 900


def words(text: str) -> set[str]:
    """Return the lower-case words of a text without its code, links and addresses."""
    for noise in (r"```.*?```", r"`[^`]*`", r"\]\([^)]*\)", r"https?://\S+", r"\n\s*Examples?:.*"):
        text = re.sub(noise, " ", text, flags=re.DOTALL)
    return {word.lower().removesuffix("'s") for word in re.findall(r"[A-Za-z][A-Za-z']*[A-Za-z]", text)}


def stems(word: str) -> Iterator[str]:
    """Yield what a word may be a form of, itself first."""
    for ending, replacement in ENDINGS:
        if word.endswith(ending):
            yield word.removesuffix(ending) + replacement


def terms() -> list[str]:
    """Return the terms that the glossary defines, as they are printed there."""
    return re.findall(r"\*\*([^*]+)\*\*", GLOSSARY.read_text())


def helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every help and option help below `command`."""
    yield context.command_path, command.help or ""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield f"{context.command_path} {parameter.opts[0]}", parameter.help or ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below, click.Context(below, info_name=name, parent=context))


def unexplained(text: str, defined: set[str]) -> set[str]:
    known = COMMON | LINUX | NAMES | defined
    return {word for word in words(text) if not any(stem in known for stem in stems(word))}


def test_every_term_of_the_help_is_common_english_or_in_the_glossary() -> None:
    defined = {word for term in terms() for word in words(term)}
    found = {path: sorted(unexplained(text, defined)) for path, text in helps(edgewright, click.Context(edgewright))}
    found = {path: unknown for path, unknown in found.items() if unknown}
    assert not found, f"define in docs/glossary.md, or add to tests/unit/packaging/common_words.txt: {found}"


def test_every_term_of_the_readme_is_common_english_or_in_the_glossary() -> None:
    defined = {word for term in terms() for word in words(term)}
    assert not unexplained((ROOT / "README.md").read_text(), defined)


def test_an_unknown_word_is_noticed() -> None:
    assert unexplained("The quuxotron serves bundles.", {"bundle"}) == {"quuxotron"}


def test_a_term_is_defined_once() -> None:
    found = [term.lower() for term in terms()]
    assert len(found) == len(set(found)), sorted(term for term in found if found.count(term) > 1)


def test_a_term_is_not_in_the_list_of_common_words() -> None:
    single = {term.lower() for term in terms() if " " not in term}
    assert not single & COMMON


def test_the_readme_takes_a_few_minutes_to_read() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= README_WORDS
