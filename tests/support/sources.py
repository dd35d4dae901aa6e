"""The product's source files as syntax trees: their modules, classes and imports, read once a test process."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

PACKAGES = (
    "edge_contracts",
    "edge_io",
    "edge_agent",
    "edge_fleet",
    "edgewright",
    "compression/edge_compression",
    "benchmarks/edge_bench",
)
"""The importable packages, as folders below the repository's root."""


def source_files() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the path of every module of the product."""
    for package in PACKAGES:
        base = (ROOT / package).parent
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return every module's syntax tree by its dotted name."""
    return {name: ast.parse(path.read_text()) for name, path in source_files()}


@functools.cache
def imports() -> dict[str, frozenset[str]]:
    """Return which modules of the product each module imports, also in functions and for type checkers only."""
    known = trees()
    found = {}
    for name, tree in known.items():
        below: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                below |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                wholes = {f"{node.module}.{alias.name}" for alias in node.names}
                below |= {whole if whole in known else node.module for whole in wholes}
        found[name] = frozenset(below & known.keys() - {name})
    return found


def circles(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """Return the strongly connected groups of more than one node (Kosaraju's algorithm)."""
    order: list[str] = []
    seen: set[str] = set()
    for start in graph:
        _finish(graph, start, seen, order)
    back: dict[str, set[str]] = {node: set() for node in graph}
    for node, targets in graph.items():
        for target in targets:
            back[target].add(node)
    seen, groups = set(), []
    for start in reversed(order):
        group: list[str] = []
        _finish(back, start, seen, group)
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


def _finish(graph: Mapping[str, Collection[str]], start: str, seen: set[str], order: list[str]) -> None:
    """Append what is reachable from `start` and not yet seen to `order`, each node after all it reaches."""
    if start in seen:
        return
    seen.add(start)
    open_nodes = [(start, iter(graph[start]))]
    while open_nodes:
        node, targets = open_nodes[-1]
        target = next((one for one in targets if one not in seen), None)
        if target is None:
            order.append(node)
            open_nodes.pop()
        else:
            seen.add(target)
            open_nodes.append((target, iter(graph[target])))
