"""What the newest versions of the dependencies are held against: pure decisions of the canary.

onnxruntime>=1.17,<1.33; platform_machine != 'armv7l'   the bound says: tried up to 1.32
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

EXTRAS = ("tflite", "images")
"""What a device may have beside the base install."""

MORE_MB = 6.0
"""So much more memory than with the versions of constraints.txt is a finding."""

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extra>\[[^]]*\])?(?P<versions>[^;]*)(?P<marker>;.*)?")


class Requirement(NamedTuple):
    """One dependency: its name, what it says without an upper bound, and the version that is already too new."""

    name: str
    unbounded: str
    below: tuple[int, ...] | None


class Sample(NamedTuple):
    """What one process did: threads and megabytes once it had answered."""

    threads: int
    rss_mb: float


def of_devices(pyproject: str) -> list[Requirement]:
    """Return what a device installs, by the text of pyproject.toml."""
    project = tomllib.loads(pyproject)["project"]
    lines = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    return [requirement(line) for line in lines]


def requirement(line: str) -> Requirement:
    """Return a dependency without its upper bound. Raises ValueError for what is none."""
    found = _REQUIREMENT.fullmatch(line.strip())
    if found is None:
        raise ValueError(f"not a dependency: {line!r}")
    versions = [one.strip() for one in found["versions"].split(",") if one.strip()]
    upper = [one for one in versions if one.startswith("<")]
    kept = ",".join(one for one in versions if one not in upper)
    unbounded = f"{found['name']}{found['extra'] or ''}{kept}{found['marker'] or ''}"
    return Requirement(found["name"], unbounded, release(upper[0].lstrip("<=")) if upper else None)


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; what follows them ("rc1", "+cpu") is left out."""
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split("."))  # type: ignore[index]


def pinned(constraints: str) -> dict[str, str]:
    """Return the versions of constraints.txt by name."""
    pairs = (line.split("==", 1) for line in constraints.splitlines() if "==" in line and not line.startswith("#"))
    return {canonical(name): version.split(";")[0].strip() for name, version in pairs}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def beyond(wanted: Iterable[Requirement], installed: Mapping[str, str]) -> list[str]:
    """Return a line for each installed version that the bounds do not allow yet."""
    lines = []
    for one in wanted:
        version = installed.get(canonical(one.name))
        if version is not None and one.below is not None and release(version) >= one.below:
            bound = ".".join(map(str, one.below))
            lines.append(
                f"{one.name} {version} is not allowed yet (<{bound}): raise the bound if nothing else is found"
            )
    return lines


def findings(
    before: Sample, now: Sample, names: Iterable[str], addresses: Iterable[str], files: Iterable[str]
) -> list[str]:
    """Return what the newest versions do that those of constraints.txt do not, or that nothing may do."""
    found = [f"looks up {name}" for name in names]
    found += [f"connects to {address}" for address in addresses]
    found += [f"leaves {file}" for file in files]
    if now.threads > before.threads:
        found.append(f"has {now.threads} threads, {before.threads} before")
    if now.rss_mb > before.rss_mb + MORE_MB:
        found.append(f"takes {now.rss_mb:.1f} MB, {before.rss_mb:.1f} MB before")
    return found


_OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Max retries|name resolution|Connection refused"
    r"|unreachable|timed out|ProxyError"
)


def is_offline(stderr: str) -> bool:
    """Return whether what pip says means that its index could not be reached."""
    return _OFFLINE.search(stderr) is not None
