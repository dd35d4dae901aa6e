"""What a device installs is bounded by what was tried, and the canary judges what is newer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "campaigns" / "canary"))

from newest import (  # noqa: E402
    MORE_MB,
    Requirement,
    Sample,
    beyond,
    canonical,
    findings,
    is_offline,
    of_devices,
    pinned,
    release,
    requirement,
)

DEVICES = of_devices((ROOT / "pyproject.toml").read_text())
BEFORE = Sample(threads=2, rss_mb=60.0)


@pytest.mark.parametrize("one", DEVICES, ids=lambda one: one.name)
def test_no_dependency_of_a_device_is_without_an_upper_bound_and_ci_tests_within_it(one: Requirement) -> None:
    assert one.below is not None
    version = pinned((ROOT / "constraints.txt").read_text()).get(canonical(one.name))
    if version is not None:  # there are wheels of tflite-runtime for other boards only
        assert release(version) < one.below


@pytest.mark.parametrize(
    ("line", "unbounded", "below"),
    [
        ("click>=8.1,<9", "click>=8.1", (9,)),
        ("engine >=1.17, <1.33; platform_machine != 'armv7l'", "engine>=1.17; platform_machine != 'armv7l'", (1, 33)),
        ("securesystemslib[crypto]>=1.3", "securesystemslib[crypto]>=1.3", None),
    ],
)  # fmt: skip
def test_the_newest_is_asked_for_without_the_upper_bound(
    line: str, unbounded: str, below: tuple[int, ...] | None
) -> None:
    one = requirement(line)
    assert (one.unbounded.replace(" ;", ";"), one.below) == (unbounded, below)


def test_what_is_no_dependency_is_refused() -> None:
    with pytest.raises(ValueError, match="not a dependency"):
        requirement("=nothing=")


def test_a_version_beyond_its_bound_is_named_and_the_bound_itself_is_beyond() -> None:
    wanted = [requirement("Engine_X>=1,<1.33"), requirement("other<2"), requirement("free>=1")]
    have = {"engine-x": "1.33.0", "other": "1.99.1rc1", "free": "9.0"}
    (line,) = beyond(wanted, have)
    assert line.startswith("Engine_X 1.33.0 is not allowed yet (<1.33)")
    assert beyond(wanted, {"engine-x": "1.32.9"}) == []


def test_constraints_are_read_by_canonical_names() -> None:
    assert pinned("# a==1\nJinja2==3.1.6\nai_edge.litert==2.3.0; x\n") == {"jinja2": "3.1.6", "ai-edge-litert": "2.3.0"}


@pytest.mark.parametrize(
    ("now", "names", "addresses", "files", "says"),
    [
        (BEFORE, (), (), (), []),
        (Sample(2, 60.0 + MORE_MB), (), (), (), []),
        (Sample(2, 60.1 + MORE_MB), (), (), (), ["takes 66.1 MB, 60.0 MB before"]),
        (Sample(1, 10.0), (), (), (), []),
        (Sample(3, 60.0), (), (), (), ["has 3 threads, 2 before"]),
        (BEFORE, ("maker.example",), ("127.0.0.2:443",), ("/h/.cache/id",),
         ["looks up maker.example", "connects to 127.0.0.2:443", "leaves /h/.cache/id"]),
    ],
)  # fmt: skip
def test_network_files_threads_and_memory_are_findings(
    now: Sample, names: tuple[str, ...], addresses: tuple[str, ...], files: tuple[str, ...], says: list[str]
) -> None:
    assert findings(BEFORE, now, names, addresses, files) == says


@pytest.mark.parametrize(
    ("stderr", "offline"),
    [
        ("NewConnectionError(...): [Errno 111] Connection refused", True),
        ("Temporary failure in name resolution", True),
        ("ERROR: Cannot install a==1 and b==2 because these package versions have conflicting dependencies.", False),
    ],
)
def test_an_index_that_cannot_be_reached_is_told_from_versions_that_do_not_fit(stderr: str, offline: bool) -> None:
    assert is_offline(stderr) == offline
