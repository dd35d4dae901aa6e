"""Which code a result was measured on, and whether that code is another one now.

    python benchmarks/common/recorded.py serving.json    # right after measuring, on a clean checkout

`benchmarks/results/recorded.json` has for each result its SHA-256, the commit it was measured at, and a digest of each
file of the code it depends on (`[code]` of `benchmarks/figures.toml`). Texts, comments and docstrings do not count:
what is compared is what the code does. A result whose code has changed is either measured again, or named under
`[[stale]]` of `figures.toml` with what has changed, and then docs/measurements.md says so.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
RECORD = RESULTS / "recorded.json"
FIGURES = ROOT / "benchmarks" / "figures.toml"


def declared() -> dict[str, Any]:
    """Return `figures.toml`."""
    return tomllib.loads(FIGURES.read_text(encoding="utf-8"))


def recorded() -> dict[str, dict[str, Any]]:
    """Return what was recorded of each result, by file name."""
    found: dict[str, dict[str, Any]] = json.loads(RECORD.read_bytes())
    return found


def results() -> list[str]:
    """Return the names of all results."""
    return sorted(path.name for path in RESULTS.glob("*.json") if path != RECORD)


def sha256(result: str) -> str:
    return hashlib.sha256((RESULTS / result).read_bytes()).hexdigest()


def code_digests(places: list[str]) -> dict[str, str]:
    """Return a digest of what each Python file below `places` does. Raises FileNotFoundError for a place that is not
    there."""
    files = [file for place in places for file in _files(ROOT / place)]
    return {str(file.relative_to(ROOT)): digest(file.read_text(encoding="utf-8")) for file in sorted(set(files))}


def changed(result: str) -> list[str]:
    """Return the files of the result's code that do something else than when it was measured, came, or went."""
    then = recorded()[result]["code"]
    now = code_digests(declared()["code"][result])
    return sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))


def digest(source: str) -> str:
    """Return 16 hexadecimal digits that name what a module's code does, the same on every version of Python: names,
    numbers and structure, without strings, comments and annotations."""
    return hashlib.sha256("\n".join(_marks(ast.parse(source))).encode()).hexdigest()[:16]


def _marks(node: ast.AST) -> Iterator[str]:
    yield type(node).__name__
    for name, value in sorted(ast.iter_fields(node)):
        if name in ("annotation", "returns", "type_params", "type_comment", "kind"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield name
                yield from _marks(child)
            elif child is not None and not (isinstance(node, ast.Constant) and isinstance(child, str)):
                yield f"{name}={child!r}"
    yield "."


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise FileNotFoundError(f"{FIGURES.name}: [code] names {place}, which is not there")
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def main() -> None:
    parser = argparse.ArgumentParser(description="Record that results were measured on the code as it is now.")
    parser.add_argument("results", nargs="+", help="File names in benchmarks/results.")
    arguments = parser.parse_args()
    places = {result: declared()["code"][result] for result in arguments.results}
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%h %as"]
    commit, date = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    record = recorded()
    for result, where in places.items():
        record[result] = {"sha256": sha256(result), "commit": commit, "date": date, "code": code_digests(where)}
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
