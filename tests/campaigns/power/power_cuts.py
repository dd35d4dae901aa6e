"""Cuts the power at every system call that changes the state folder, and looks whether the device lives on.

    python tests/campaigns/power/power_cuts.py --out benchmarks/results/power-cuts.json
    python tests/campaigns/power/power_cuts.py --scenario update --only-cut 37

For each scenario and each n: a child runs the real code until its n-th changing call, which the kernel does not let
happen any more (`call_stops`). From the calls before it, `disk_model` makes the disks that such a cut can leave. On
each the device is started again (`power_judge`). The process really dies each time, and the disk that really is there
must be the one the model says for a loss of nothing, so the model is checked at every point, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # tests/, for `campaigns` and `support`

from campaigns.power.device import Promises
from campaigns.power.scenarios import SCENARIOS, Scenario, Scenes
from campaigns.power.verdict import Finding
from support.disks import disk_model
from support.disks.call_stops import Call, run_until, why_not
from support.disks.disk_model import Disk, Image, Loss, read_image, write_image

LOSSES: dict[str, Loss] = {
    "nothing": disk_model.kept,
    "everything": disk_model.lost,
    "bytes": disk_model.bytes_lost,
    "zeros": disk_model.bytes_zero,
    "names": disk_model.names_lost,
    "torn": disk_model.torn,
}
SCATTERS = 2
"""Losses of any pages and youngest names that are drawn for each point, beside those above."""

PATIENCE_S = 30
"""What a restart and everything after it may take; more is taken for a hang."""


@dataclass(kw_only=True)
class Outcome:
    """What came of one scenario. `disks` counts those that differ from the others of their point and from the
    point before; the device was started on each of them."""

    scenario: str
    calls: int = 0
    points: int = 0
    images: int = 0
    disks: int = 0
    seconds: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, str | int]] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(finding["kind"] == kind for finding in self.findings)


def cut_at(scenario: Scenario, scenes: Scenes, work: Path, choose: Callable[[int], Iterable[int]]) -> Outcome:
    """Cut a scenario at the points chosen from the number of its calls, and judge every disk that leaves."""
    began = time.monotonic()
    outcome = Outcome(scenario=scenario.name)
    calls, _ = _run(scenario, scenes, work, None)
    outcome.calls = len(calls)
    outcome.kinds = dict(Counter(call.kind for call in calls))
    for point in choose(len(calls)):
        _cut(scenario, scenes, work, point, outcome)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def spread(count: int | None) -> Callable[[int], Iterable[int]]:
    """Return what chooses `count` points evenly, the first call and the end among them; None chooses every call."""

    def choose(calls: int) -> Iterable[int]:
        if count is None:
            return range(calls + 1)
        return sorted({round(number * calls / (count - 1)) for number in range(count)})

    return choose


def _cut(scenario: Scenario, scenes: Scenes, work: Path, point: int, outcome: Outcome) -> None:
    calls, cut = _run(scenario, scenes, work, point)
    outcome.points += 1
    happened, cut_call = (calls[:-1], calls[-1]) if cut else (calls, None)
    seen: set[str] = set()
    for loss, image in _images(scenario, scenes.base(scenario.base), happened, cut_call, point):
        outcome.images += loss is not None
        if loss == "nothing":
            _same(image, read_image(work / "state"), f"{scenario.name} at {point}: {cut_call}")
        digest = _digest(image)
        if digest in seen:
            continue
        seen.add(digest)
        if loss is None:
            continue
        outcome.disks += 1
        for finding in _judged(scenario, scenes, work, image):
            at = str(cut_call or "the end")
            outcome.findings.append({"point": point, "call": at, "loss": loss, **asdict(finding)})


def _run(scenario: Scenario, scenes: Scenes, work: Path, point: int | None) -> tuple[list[Call], bool]:
    state, promises = work / "state", work / "promises"
    shutil.rmtree(state, ignore_errors=True)
    write_image(read_image(scenes.base(scenario.base)), state)
    promises.unlink(missing_ok=True)
    return run_until(lambda: scenario.act(state, scenes, Promises(promises)), state, point)


def _images(
    scenario: Scenario, base: Path, happened: list[Call], cut: Call | None, point: int
) -> Iterator[tuple[str | None, Image]]:
    """Yield every loss and the disk it leaves; first, without a name, those of the point before, to be left out."""
    losses = dict(LOSSES)
    losses |= {f"scattered-{n}": disk_model.scattered(f"{scenario.name}/{point}/{n}") for n in range(SCATTERS)}
    disk = Disk(base)
    for call in happened[:-1]:
        disk.happen(call)
    if happened:
        yield from ((None, disk.after_cut(loss)) for loss in LOSSES.values())
        disk.happen(happened[-1])
    if cut is not None and cut.kind == "write":
        losses.pop("torn")
        yield from ((name, disk.after_cut(loss)) for name, loss in losses.items())
        disk.happen(cut)
        yield "torn", disk.after_cut(disk_model.torn)
    else:
        yield from ((name, disk.after_cut(loss)) for name, loss in losses.items())


def _judged(scenario: Scenario, scenes: Scenes, work: Path, image: Image) -> list[Finding]:
    folder = work / "disk"
    shutil.rmtree(folder, ignore_errors=True)
    write_image(image, folder)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(PATIENCE_S)
    try:
        return scenario.judge(folder, scenes, Promises(work / "promises"))
    except Exception as error:
        return [Finding(kind="brick", text="".join(traceback.format_exception(error))[-1500:])]
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"has not ended after {PATIENCE_S} s")


def _same(model: Image, real: Image, where: str) -> None:
    """The model has to know the disk exactly; only SQLite's shared memory is written without calls."""
    names = {name for name in model.keys() | real.keys() if not name.endswith("-shm")}
    wrong = [name for name in sorted(names) if model.get(name, "no") != real.get(name, "no")]
    if wrong:
        raise AssertionError(f"{where}: the disk model is wrong about {wrong}")


def _digest(image: Image) -> str:
    return hashlib.sha256(repr(sorted(image.items())).encode()).hexdigest()


def report(outcomes: list[Outcome]) -> dict[str, object]:
    """Return the outcomes as they are published."""
    kinds = ("brick", "mixture", "broken-promise", "audit", "leak")
    return {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}",
        "losses": [*LOSSES, *(f"scattered-{n}" for n in range(SCATTERS))],
        "points": sum(outcome.points for outcome in outcomes),
        "images": sum(outcome.images for outcome in outcomes),
        "disks": sum(outcome.disks for outcome in outcomes),
        **{f"{kind}s": sum(outcome.count(kind) for outcome in outcomes) for kind in kinds},
        "scenarios": [asdict(outcome) for outcome in outcomes],
    }


def main() -> int:
    """Cut, print a line for each scenario, and write the report. Exit 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=[s.name for s in SCENARIOS], help="default: all")
    parser.add_argument("--points", type=int, help="cut at so many calls, evenly spread; default: at every one")
    parser.add_argument("--only-cut", type=int, help="cut at this call only")
    parser.add_argument("--out", type=Path, help="write the report here")
    options = parser.parse_args()
    if reason := why_not():
        print(f"power cannot be cut here: {reason}", file=sys.stderr)
        return 2
    logging.disable()
    outcomes = []
    choose = spread(options.points) if options.only_cut is None else lambda _: [options.only_cut]
    memory = "/dev/shm"  # a disk whose fsync costs nothing: what is durable is the model's business
    with tempfile.TemporaryDirectory(prefix="power-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        scenes = Scenes(Path(folder) / "scenes")
        for scenario in SCENARIOS:
            if options.scenario and scenario.name not in options.scenario:
                continue
            work = Path(folder) / scenario.name
            work.mkdir()
            outcome = cut_at(scenario, scenes, work, choose)
            outcomes.append(outcome)
            counts = f"{outcome.points:>6} points {outcome.disks:>6} disks {len(outcome.findings):>4} findings"
            print(f"{scenario.name:<10}{counts} {outcome.seconds:>7.1f} s", flush=True)
            for finding in outcome.findings[:12]:
                print("   ", finding, flush=True)
    if options.out:
        options.out.write_text(json.dumps(report(outcomes), indent=1) + "\n", encoding="utf-8")
    return 1 if any(outcome.findings for outcome in outcomes) else 0


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
