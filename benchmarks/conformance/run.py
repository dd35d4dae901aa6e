"""Run all of theupdateframework/tuf-conformance with `client.py` and write what came out.

    python benchmarks/conformance/run.py SUITE --python SUITE_PYTHON [--out benchmarks/results/tuf-conformance.json]

SUITE is a checkout, SUITE_PYTHON an interpreter that has what the suite needs (benchmarks/conformance.md). One broker,
Mosquitto where it is installed, serves all calls of the client. Ends with 0 only if every test passed, and no list of
expected failures is read: the suite looks for one beside its entry point, where there is none. More arguments go to
pytest; then the summary is written only where `--out` says, since it may be of a part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from client import BROKER

from edgewright.demo.broker import EmbeddedBroker, free_port

CLIENT = Path(__file__).with_name("client.py")
RESULTS = Path(__file__).parents[1] / "results" / "tuf-conformance.json"
PACKAGES = ("edgewright", "tuf", "securesystemslib", "cryptography", "paho-mqtt", "msgspec")


@contextlib.contextmanager
def broker() -> Iterator[tuple[str, str]]:
    """Yield a broker on loopback: its address as the client wants it, and its name."""
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        with EmbeddedBroker() as embedded:
            yield f"127.0.0.1:{embedded.port}/{embedded.protocol}", f"iotcore {version('iotcore')}"
        return
    port = free_port()
    said = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    process = subprocess.Popen([program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}/5", said.splitlines()[0].strip()
    finally:
        process.terminate()
        process.wait(10)


def run(suite: Path, python: str, words: list[str]) -> dict[str, Any]:
    """Run the suite with extra arguments for pytest; return its summary. Raises SystemExit if it was cut short."""
    started = time.monotonic()
    with broker() as (address, name), tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        entry = f"{sys.executable} {CLIENT}"
        command = [python, "-m", "pytest", "-q", "tuf_conformance", "--entrypoint", entry, f"--junitxml={report}"]
        environment = {**os.environ, BROKER: address}
        code = subprocess.run([*command, *words], cwd=suite, env=environment, check=False).returncode
        if code not in (0, 1):
            raise SystemExit(f"the suite did not run to its end: pytest ended with {code}")
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))  # noqa: S314 - pytest wrote it
    outcomes = Counter(_outcome(case) for case in cases)
    by_file = Counter(case.get("classname", "").rpartition(".")[2] for case in cases)
    return {
        "suite": "theupdateframework/tuf-conformance",
        "suite_commit": _commit(suite),
        "passed": outcomes["passed"],
        "failed": outcomes["failed"],
        "skipped_or_expected_failures": outcomes["skipped"],
        "tests": len(cases),
        "failures": sorted(case.get("name", "") for case in cases if _outcome(case) == "failed"),
        "tests_by_file": dict(sorted(by_file.items())),
        "seconds": round(time.monotonic() - started, 1),
        "path": "updater -> MQTT broker -> fleet depot --upstream -> the suite's HTTP repository",
        "broker": name,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {package: version(package) for package in PACKAGES},
    }


def main() -> int:
    """Run, write the summary, say it in a line; return 0 if everything passed."""
    parser = argparse.ArgumentParser(description="Run tuf-conformance with our updater over MQTT.")
    parser.add_argument("suite", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter with the suite's requirements")
    parser.add_argument("--out", type=Path, help="where the summary goes")
    asked, words = parser.parse_known_args()
    summary = run(asked.suite.resolve(), asked.python, words)
    out = asked.out or (None if words else RESULTS)
    if out is not None:
        out.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"{summary['passed']} of {summary['tests']} passed in {summary['seconds']} s")
    return 0 if summary["passed"] == summary["tests"] > 0 else 1


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def _commit(suite: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=suite, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
