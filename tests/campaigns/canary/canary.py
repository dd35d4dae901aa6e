"""What do the newest versions of a device's dependencies do that those we test with do not?

Makes a new environment with the newest of everything a device installs, whatever the upper bounds say, and looks at
what an agent and a program with `Runtime.open` do in it: names looked up, connections, files left, threads, memory.

    python tests/campaigns/canary/canary.py build/canary

pip asks the index it is configured for. Exit code 0: nothing new, though bounds may be raised; 1: something was found;
77: not tried, because the index cannot be reached or no network of its own can be made here. Decisions are in
`newest.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(ROOT / "tests"), str(ROOT)]

import msgspec  # noqa: E402
from newest import Requirement, Sample, beyond, canonical, findings, is_offline, of_devices, pinned  # noqa: E402
from support.boxes.watched_network import FIRST_REPORT_S, Seen, can_watch  # noqa: E402
from support.makers import bundles  # noqa: E402

SKIPPED = 77
PROGRAM = """
import json, os, sys, time
from edge_agent import Runtime
import numpy as np
with Runtime.open(sys.argv[1]) as runtime:
    for _ in range(50):
        runtime.infer({"x": np.ones((1, 4), np.float32)})
    time.sleep(2)
    rss = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    print(json.dumps([len(os.listdir("/proc/self/task")), rss]))
"""
WATCH = """
import json, sys
from pathlib import Path
import msgspec
from support.boxes.watched_network import watch
folder, words, seconds = json.loads(sys.argv[1])
sys.stdout.buffer.write(msgspec.json.encode(watch(Path(folder), words, ends_after_s=seconds)))
"""
AGENT = """[device]
id = "canary"
state = "{folder}/state"
[[slots]]
name = "main"
factory = "{folder}/bundle"
http = "127.0.0.1:8099"
"""


def make_environment(folder: Path, wanted: Sequence[Requirement]) -> str:
    """Make a new environment in `folder` with the newest versions and this project; return why it could not be."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--retries",
        "1",
        "--timeout",
        "15",
    ]
    for words in (["--upgrade", *(one.unbounded for one in wanted), "hatchling"], ["--no-deps", str(ROOT)]):
        options = ["--no-build-isolation"] if words[0] == "--no-deps" else []
        done = subprocess.run([*pip, *options, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return done.stderr.strip() or "pip failed"
    return ""


def installed(python: Path) -> dict[str, str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True)
    return {canonical(one["name"]): one["version"] for one in json.loads(listed.stdout)}


def sample(python: Path, bundle: Path) -> Sample:
    """Return the least of three runs: memory of the same program differs by what the kernel has at hand."""
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [python, "-c", PROGRAM, bundle], cwd=bundle.parent, capture_output=True, text=True, check=True
        )
        runs.append(Sample(*json.loads(done.stdout.splitlines()[-1])))
    return Sample(max(one.threads for one in runs), min(one.rss_mb for one in runs))


def watched(python: Path, folder: Path, words: Sequence[str], seconds: float) -> Seen:
    """Run `python WORDS` in a network of its own, with the environment of `python`."""
    plan = json.dumps([str(folder), list(words), seconds])
    done = subprocess.run(
        [python, "-c", WATCH, plan], env={"PYTHONPATH": str(ROOT / "tests"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the canary could not look: {done.stderr[-2000:]}")
    return msgspec.json.decode(done.stdout, type=Seen)


def look(python: Path, folder: Path) -> list[str]:
    """Return what was found with the environment of `python`, its sample files in `folder`."""
    bundle = folder / "bundle"
    bundles.make_bundle(bundle)
    (folder / "agent.toml").write_text(AGENT.format(folder=folder))
    found: list[str] = []
    print("memory and threads of a program with Runtime.open ...", flush=True)
    before, now = sample(Path(sys.executable), bundle), sample(python, bundle)
    print(f"  {before.rss_mb:.1f} -> {now.rss_mb:.1f} MB, {before.threads} -> {now.threads} threads")
    agent = ["-m", "edgewright.cli", "agent", "run", "--config", str(folder / "agent.toml")]
    for what, words in (("an agent", agent), ("a program", ["-c", PROGRAM, str(bundle)])):
        print(f"what {what} looks up, connects to and leaves ...", flush=True)
        seen = watched(python, folder, words, 3.0 + FIRST_REPORT_S)
        if seen.code != 0:
            found.append(f"{what} ends with {seen.code}: {seen.output[-600:]}")
        found += [f"{what} {one}" for one in findings(before, before, seen.names, seen.addresses, seen.files)]
    return [*found, *(f"a program {one}" for one in findings(before, now, (), (), ()))]


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "canary"
    if not can_watch():
        print("skipped: no network of its own can be made here; run it as root, with iproute2")
        return SKIPPED
    wanted = of_devices((ROOT / "pyproject.toml").read_text())
    print("installing the newest versions ...", flush=True)
    if reason := make_environment(folder, wanted):
        if is_offline(reason):
            print("skipped: the package index cannot be reached; nothing was tried, the bounds stay as they are")
            return SKIPPED
        print(f"the newest versions cannot be installed together:\n{reason}")
        return 1
    python = folder.resolve() / "bin" / "python"
    have, tried = installed(python), pinned((ROOT / "constraints.txt").read_text())
    for one in wanted:
        name = canonical(one.name)
        if name in have:
            print(f"  {name} {tried.get(name, '-')} -> {have[name]}")
    with tempfile.TemporaryDirectory(prefix="edgewright-canary-") as place:
        found = look(python, Path(place))
    for line in (*found, *beyond(wanted, have)):
        print(line)
    print("nothing that may not be" if not found else f"{len(found)} found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
