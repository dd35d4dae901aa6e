"""What an installation without extras is made of, and a virtual environment that holds exactly that.

Nothing is downloaded: the environment links the files of the distributions that are installed here.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import venv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PACKAGES = {
    "edge_contracts": ROOT / "edge_contracts",
    "edge_io": ROOT / "edge_io",
    "edge_agent": ROOT / "edge_agent",
    "edge_fleet": ROOT / "edge_fleet",
    "edgewright": ROOT / "edgewright",
    "edge_compression": ROOT / "compression" / "edge_compression",
    "edge_bench": ROOT / "benchmarks" / "edge_bench",
}
ENGINEERS_SIDE = ("onnx", "torch", "optuna", "sqlalchemy", "rich", "onnxslim", "ai_edge_quantizer", "iotcore", "pytest")


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Return the canonical names of everything that installing `name` with `extras` brings, itself included."""
    wanted = [(canonicalize_name(name), extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        item = wanted.pop()
        if item in seen:
            continue
        seen.add(item)
        for line in importlib.metadata.requires(item[0]) or []:
            requirement = Requirement(line)
            if _applies(requirement, item[1]):
                wanted.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {name for name, _ in seen}


def installed_mb(names: set[str]) -> float:
    """Return the megabytes of the files of these distributions as they are installed here, without bytecode."""
    files = [
        Path(str(file.locate()))
        for name in names
        for file in importlib.metadata.distribution(name).files or []
        if "__pycache__" not in file.parts
    ]
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})


class Environment:
    """A virtual environment with the base install and nothing else; `run` starts its interpreter."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        (self._site,) = folder.glob("lib/python*/site-packages")
        for name in closure("edgewright") - {"edgewright"}:
            self._link(importlib.metadata.distribution(name))
        for package, source in PACKAGES.items():
            (self._site / package).symlink_to(source)

    def run(self, *arguments: str, timeout: float = 50.0) -> subprocess.CompletedProcess[str]:
        """Run the interpreter in isolated mode and return what it said."""
        command = [str(self.python), "-I", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, cwd=self._site, env=self.variables
        )

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a fresh login: nothing that points Python anywhere."""
        return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}

    def _link(self, distribution: importlib.metadata.Distribution) -> None:
        for file in distribution.files or []:
            if ".." in file.parts or "__pycache__" in file.parts:
                continue  # scripts in bin/, and what Python makes itself
            target = self._site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(distribution.locate_file(file))))
