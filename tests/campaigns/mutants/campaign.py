"""Which wrong decisions would the unit tests notice? Runs them on mutants of the modules that decide.

For each module of `modules.toml`, mutants are chosen by a seed, and its unit tests run on each, in a child forked from
a process that has imported the libraries, but nothing of the product. A mutant is killed when a test fails or takes
five times its time. Those that change nothing are listed with their reason in `equivalents.toml`. How mutants are made
is in `mutate.py`.

    python tests/campaigns/mutants/campaign.py --out benchmarks/results/mutants.json
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.util
import json
import os
import re
import signal
import sys
import time
import tomllib
import traceback
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(ROOT / "tests"), str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "compression")]
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "CI": "1"}  # CI: hypothesis repeats its examples
sys.dont_write_bytecode = True

import hypothesis  # noqa: E402
import msgspec  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from mutate import Mutant, chosen, mutants_of  # noqa: E402

LOADED = (hypothesis, msgspec, np)
"""What tests import anyway: here once instead of in every child."""

MODULES: dict[str, tuple[str, ...]] = tomllib.loads((HERE / "modules.toml").read_text())["modules"]
"""Source path of each module that decides, with the unit tests that hold it; with none, those that import it."""

MIN_SCORE = 0.9


class Result(NamedTuple):
    """What became of the mutants of a module."""

    module: str
    possible: int
    killed: int
    equivalent: int
    survived: list[dict[str, Any]]

    @property
    def score(self) -> float:
        judged = self.killed + len(self.survived)
        return self.killed / judged if judged else 1.0


class MutatedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module of another source than that on the disk."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)


def dotted(module: str) -> str:
    return module.removeprefix("compression/").removeprefix("benchmarks/").removesuffix(".py").replace("/", ".")


def tests_of(module: str) -> list[str]:
    """Return the unit tests listed for the module; where none is, those that import it."""
    if MODULES[module]:
        return list(MODULES[module])
    package, _, name = dotted(module).rpartition(".")
    imported = re.compile(
        rf"^from {re.escape(package)}\.{name} import|^import {re.escape(package)}\.{name}\b"
        rf"|^from {re.escape(package)} import [^\n]*\b{name}\b",
        re.MULTILINE,
    )
    files = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if imported.search(path.read_text())]


def start(module: str, source: str, tests: list[str]) -> int:
    """Fork a child that runs `tests` with `source` in place of the module; return its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.meta_path.insert(0, MutatedModule(dotted(module), ROOT / module, source))
    code = 1
    try:
        options = [
            "-x",
            "-q",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--rootdir",
            str(ROOT),
        ]
        code = int(pytest.main([*options, *tests]))
    except BaseException:  # a mutant may raise anything: it is killed
        traceback.print_exc()
    os._exit(code)


def finished(child: int, deadline: float) -> int | None:
    """Return the exit code of the child, 99 if it took too long and was killed, None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        return os.waitstatus_to_exitcode(status)
    if time.monotonic() < deadline:
        return None
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 99


def run_all(module: str, mutants: list[Mutant], tests: list[str], limit_s: float, jobs: int) -> Iterator[Mutant]:
    """Run the tests on every mutant, `jobs` at once; yield those that survive."""
    waiting, running = list(reversed(mutants)), dict[int, tuple[Mutant, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[start(module, mutant.source, tests)] = mutant, time.monotonic() + limit_s
        for child, (mutant, deadline) in list(running.items()):
            code = finished(child, deadline)
            if code is not None:
                del running[child]
                if code == 0:
                    yield mutant
        time.sleep(0.01)


def judge(module: str, arguments: argparse.Namespace, equivalents: list[dict[str, str]]) -> Result:
    source, tests = (ROOT / module).read_text(), tests_of(module)
    begin = time.monotonic()
    child = start(module, source, tests)
    while (code := finished(child, begin + 300)) is None:
        time.sleep(0.01)
    if code:
        raise SystemExit(f"{module}: its tests do not pass without a mutant: pytest {' '.join(tests)}")
    limit_s = 5 * (time.monotonic() - begin) + 10
    same = {(one["module"], one["before"], one["after"]) for one in equivalents}
    possible = mutants_of(source)
    picked = chosen(possible, arguments.count, arguments.seed)
    real = [mutant for mutant in picked if (module, mutant.before, mutant.after) not in same]
    lines = source.splitlines()
    survived = [
        {"line": one.line, "operator": one.operator, "before": one.before, "after": one.after}
        for one in run_all(module, real, tests, limit_s, arguments.jobs)
    ]
    for one in survived:
        print(f"  {module}:{one['line']}: {one['before']!r} -> {one['after']!r}   | {lines[one['line'] - 1].strip()}")
    return Result(module, len(possible), len(real) - len(survived), len(picked) - len(real), survived)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="Source paths, or parts of them; default: all of modules.toml.")
    parser.add_argument("--count", type=int, default=40, help="Mutants a module (default: 40).")
    parser.add_argument("--seed", type=int, default=20261201, help="Chooses the mutants.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="Mutants tested at once.")
    parser.add_argument("--out", type=Path, help="Write the result there, as JSON.")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    equivalents = tomllib.loads((HERE / "equivalents.toml").read_text()).get("equivalent", [])
    wanted = [one for one in MODULES if not arguments.modules or any(part in one for part in arguments.modules)]
    results = []
    for module in wanted:
        result = judge(module, arguments, equivalents)
        results.append(result)
        print(
            f"{result.score:4.0%} {module}: {result.killed} killed, {len(result.survived)} survived,"
            f" {result.equivalent} equivalent, of {result.possible} possible",
            flush=True,
        )
    if arguments.out is not None:
        rows = [{**result._asdict(), "score": round(result.score, 3)} for result in results]
        report = {"command": "make mutants", "seed": arguments.seed, "count": arguments.count, "modules": rows}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    weak = [result.module for result in results if result.score < MIN_SCORE]
    raise SystemExit(f"below {MIN_SCORE:.0%}: {', '.join(weak)}" if weak else 0)


if __name__ == "__main__":
    main()
