"""The structure of the sources: one meaning a class name, no circle of imports, no folder that nobody can take in."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict

import pytest
from support.sources import ROOT, circles, imports, source_files, trees

HOMONYMS: dict[str, str] = {}
"""Public class names that stand for two things on purpose, each with its reason."""

MAX_MODULES = 20

LARGE_FOLDERS = {
    "edge_contracts": "one document or message a file, and everybody looks them up by name",
    "compression/edge_compression/passes": "one transformation a file, found by the recipe's key",
}
"""Folders that may hold more modules, each with its reason."""


@pytest.fixture(scope="module", autouse=True)
def parsed() -> None:
    """Parse the sources before the clock of a test starts."""
    imports()


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert len(places) > 300  # the sources were read at all
    twice = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert twice.keys() == HOMONYMS.keys(), twice


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports for type checkers count too: who reads one of the files must read the other."""
    assert imports()["edge_agent.supervisor.supervisor"]  # imports were found at all
    assert circles(imports()) == []


def test_a_circle_is_found() -> None:
    graph = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("ad"), "d": frozenset("e"), "e": frozenset[str]()}
    assert circles(graph) == [["a", "b", "c"]]


def test_no_folder_holds_more_modules_than_one_can_take_in() -> None:
    folders = [str(path.parent.relative_to(ROOT)) for _, path in source_files() if path.name != "__init__.py"]
    folders += [str(path.parent.relative_to(ROOT)) for path in (ROOT / "benchmarks").glob("[!e]*/*.py")]
    large = {folder for folder, modules in Counter(folders).items() if modules > MAX_MODULES}
    assert large <= LARGE_FOLDERS.keys()


def test_no_file_holds_what_a_merge_left() -> None:
    """Installers read constraints and the like late, and tests do not read them at all."""
    written = [ROOT / "constraints.txt", ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "CHANGELOG.md"]
    left = [path.name for path in written if re.search(r"^(<{7} |>{7} |={7}$)", path.read_text(), re.MULTILINE)]
    assert not left
