"""False-alarm rate and detection power of the drift tests. On real models and real samples.

    python benchmarks/statistics/drift_detection.py --corpus FOLDER --work FOLDER --fresh ic_resnet8 --out FILE.json

Windows are judged by the agent's `core.drift` (and `drift_watch`); what is counted of a sample is what its
`histograms` count, which is compared on some of them. Three experiments, on bundles of `held_out.py`:

- `null`: reference and window are both drawn, with replacement, from one task's samples: nothing has changed, by
  construction, at any size. Each of 1,000 windows has a reference of its own, made as the toolchain makes it.
- `shipped`: the bundle's own reference against windows of other samples, each drawn without replacement, through one
  `DriftMonitor` for all: its slow alarm is in it.
- `detection`: held-out samples are changed by so much, windows of them are judged against the bundle's reference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics.conformal_coverage import tasks
from benchmarks.statistics.held_out import HeldOut
from edge_agent.device_event import DeviceEvent
from edge_agent.histogram_names import references
from edge_agent.inference.histograms import STATISTICS, HistogramSampler, sample_statistics
from edge_agent.inference.samples import to_model
from edge_agent.processing.activations import softmax
from edge_agent.telemetry.drift_monitor import DriftMonitor
from edge_agent.telemetry.drift_tests import judge
from edge_bench.environment import environment
from edge_compression.bundle.histograms import histogram
from edge_contracts.reference import Histogram

Array = NDArray[Any]
Floats = NDArray[np.float64]

WINDOWS = 1000
SIZES = (50, 200, 1000, 5000)
LOOKS, LOOKED_AT = 200, (50, 200)
"""Windows of each size for one point of a detection curve."""

MOST_CHANGED = 600
"""Held-out samples that are changed: what one task's curves cost is mostly inference."""

CHANNELS = {"ic_resnet8": -1, "watch_har_cnn1d": 1}
"""The tasks with detection curves and the axis of their sensors: colors, axes of acceleration and rotation."""

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
SHIFTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Magnitudes: of what is mixed into a window, and of what is added, in standard deviations of all samples' numbers."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is counted of each sample: the numbers of its input and of its answer by name, and the class answered."""

    numbers: Mapping[str, Floats]
    classes: NDArray[np.intp]
    count: int

    def bins(self, edges: Mapping[str, Sequence[float]], pick: NDArray[np.intp]) -> dict[str, list[int]]:
        """Return the counts of the picked samples in these bins, classes under "class"."""
        counted = {
            name: np.bincount(
                np.searchsorted(borders, self.numbers[name][pick], side="right"), minlength=len(borders) + 1
            )
            for name, borders in edges.items()
        }
        counted["class"] = np.bincount(self.classes[pick], minlength=self.count)
        return {name: counts.tolist() for name, counts in counted.items()}


def see(held: HeldOut, x: Array) -> Seen:
    """Return what is counted of samples by the first variant of a bundle, for all of them at once."""
    manifest = held.bundle.manifest
    fed = to_model(x, manifest.inputs[0])
    rows = np.array([sample_statistics(fed[index : index + 1]) for index in range(len(fed))])
    answers = held.answers(manifest.variants[0], x).reshape(len(x), -1).astype(np.float64)
    probabilities = softmax(answers) if manifest.outputs[0].kind == "logits" else answers
    numbers = {name: rows[:, column] for column, name in enumerate(STATISTICS)}
    numbers["confidence"] = probabilities.max(axis=1)
    return Seen(numbers=numbers, classes=probabilities.argmax(axis=1), count=probabilities.shape[1])


def null_windows(seen: Seen, samples: int, size: int) -> dict[str, Any]:
    """Return in how many windows without drift anything alarms."""
    rng = np.random.default_rng(size)
    population = len(seen.classes)
    alarms = dict.fromkeys([*seen.numbers, "class"], 0)
    windows = 0
    for _ in range(WINDOWS):
        told = rng.integers(population, size=samples)
        made = {name: histogram(values[told]) for name, values in seen.numbers.items()}
        edges = {name: one.edges for name, one in made.items() if one is not None}
        judged = judge(seen.bins(edges, told), seen.bins(edges, rng.integers(population, size=size)))
        windows += any(drift.alarm for drift in judged)
        for drift in judged:
            alarms[drift.name] += drift.alarm
    return {"reference": samples, "size": size, "windows": WINDOWS, "alarms": windows, "by_name": alarms}


def shipped_windows(held: HeldOut, seen: Seen, size: int) -> dict[str, Any]:
    """Return in how many windows the watch alarms, against the bundle's reference, and its slow alarms."""
    rng = np.random.default_rng(size)
    edges, names = edges_of(held)
    told: list[DeviceEvent] = []
    watch = DriftMonitor("main", told.append)
    over = 0
    for _ in range(WINDOWS):
        bins = seen.bins(edges, rng.choice(len(seen.classes), size=size, replace=False))
        found = watch.close(held.bundle.manifest, {names[name]: counts for name, counts in bins.items()})
        over += any(distance > 1.0 for distance in found.values())
    slow = sum(news.event == "drift" and "(slow)" in news.text for news in told)
    return {"size": size, "windows": WINDOWS, "pool": len(seen.classes), "alarms": over, "slow": slow}


def edges_of(held: HeldOut) -> tuple[dict[str, Sequence[float]], dict[str, str]]:
    """Return the borders of a bundle's histograms by our names, and the device's name of each."""
    manifest = held.bundle.manifest
    variant, tensor = manifest.variants[0], manifest.inputs[0].name
    assert manifest.reference is not None
    assert variant.reference is not None
    made: dict[str, Histogram] = {
        one.statistic: one.histogram for one in manifest.reference.features if one.index is None
    }
    names = {name: f"{tensor}/{name}" for name in made}
    if variant.reference.confidence is not None:
        made["confidence"] = variant.reference.confidence
    names |= {"confidence": f"{variant.id}/confidence", "class": f"{variant.id}/class"}
    return {name: one.edges for name, one in made.items()}, names


def check(held: HeldOut, seen: Seen) -> None:
    """Compare with what the device's own counter counts of the first samples, one after the other."""
    manifest = held.bundle.manifest
    variant, output = manifest.variants[0], manifest.outputs[0].name
    count = min(100, len(held.x))
    counter = HistogramSampler(manifest)
    answers = held.answers(variant, held.x[:count])
    fed = to_model(held.x[:count], manifest.inputs[0])
    for index in range(count):
        counter.count([fed[index : index + 1]], variant, {output: answers[index : index + 1]}, 0)
    edges, names = edges_of(held)
    ours = {names[name]: counts for name, counts in seen.bins(edges, np.arange(count)).items()}
    if {name: counter.totals[name] for name in ours} != ours:
        raise SystemExit(f"{held.task}: this script counts otherwise than the device")


def added(make: Callable[[np.random.Generator, Array], Array]) -> Callable[[HeldOut, float], Array]:
    """Return a change that adds `magnitude` standard deviations of what `make` gives, as the sensor can show it."""

    def change(held: HeldOut, magnitude: float) -> Array:
        x = held.x[:MOST_CHANGED]
        wide = x.astype(np.float64) + magnitude * float(held.x.std()) * make(np.random.default_rng(3), x)
        if x.dtype.kind in "iu":
            bounds = np.iinfo(x.dtype)
            wide = np.clip(np.rint(wide), bounds.min, bounds.max)
        return wide.astype(x.dtype)

    return change


def dead(held: HeldOut) -> Array:
    """Return the samples with their first sensor stuck at zero."""
    x = held.x[:MOST_CHANGED].copy()
    np.moveaxis(x, CHANNELS[held.task], 0)[0] = 0
    return x


def one_class(held: HeldOut) -> Array:
    """Return the samples of the most frequent class."""
    classes = held.y.ravel()
    return held.x[classes == np.bincount(classes).argmax()][:MOST_CHANGED]


ADDED = {
    "mean shift": added(lambda _, x: np.ones(x.shape)),
    "noise": added(lambda rng, x: rng.standard_normal(x.shape)),
}
MIXED = {"dead sensor": dead, "class mix": one_class}


def detection(held: HeldOut, clean: Seen) -> list[dict[str, Any]]:
    """Return the points of all curves of a task."""
    points = []
    for kind, change in ADDED.items():
        for magnitude in SHIFTS:
            changed = see(held, change(held, magnitude))
            points += [look(held, kind, magnitude, size, [(changed, size)]) for size in LOOKED_AT]
    for kind, mix in MIXED.items():
        changed = see(held, mix(held))
        for share in SHARES:
            for size in LOOKED_AT:
                of_changed = round(share * size)
                points.append(look(held, kind, share, size, [(changed, of_changed), (clean, size - of_changed)]))
    return points


def look(held: HeldOut, kind: str, magnitude: float, size: int, parts: list[tuple[Seen, int]]) -> dict[str, Any]:
    """Return in how many windows, made of so many samples of each part, anything alarms."""
    rng = np.random.default_rng(11)
    edges, names = edges_of(held)
    wanted = references(held.bundle.manifest)
    alarms = 0
    for _ in range(LOOKS):
        window: dict[str, list[int]] = {}
        for seen, count in parts:
            pick = rng.choice(len(seen.classes), size=count, replace=count > len(seen.classes))
            for name, counts in seen.bins(edges, pick).items():
                before = window.get(names[name], [0] * len(counts))
                window[names[name]] = [a + b for a, b in zip(before, counts, strict=True)]
        alarms += any(drift.alarm for drift in judge(wanted, window))
    return {
        "task": held.task,
        "kind": kind,
        "magnitude": magnitude,
        "size": size,
        "windows": LOOKS,
        "alarms": alarms,
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all counts, telling of each task as it is done."""
    null: list[dict[str, Any]] = []
    shipped: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for held in tasks(arguments):
        if held.bundle.manifest.outputs[0].kind == "values":
            continue
        seen = see(held, held.x)
        check(held, seen)
        samples = held.bundle.manifest.reference.samples if held.bundle.manifest.reference else len(held.x)
        for size in SIZES:
            null.append({"task": held.task, **null_windows(seen, samples, size)})
            if 4 * size <= len(held.x):
                shipped.append({"task": held.task, **shipped_windows(held, seen, size)})
        if held.task in CHANNELS:
            curves += detection(held, seen)
        rates = ", ".join(f"{one['size']}: {one['alarms']}" for one in null if one["task"] == held.task)
        others = ", ".join(f"{one['size']}: {one['alarms']}" for one in shipped if one["task"] == held.task)
        sys.stdout.write(f"{held.task:28} alarms in {WINDOWS} windows, null {rates}; shipped {others}\n")
        sys.stdout.flush()
    return {"null": null, "shipped": shipped, "detection": curves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the tasks' .toml files")
    parser.add_argument("--work", type=Path, required=True, help="keeps the bundles; those in it are taken as they are")
    parser.add_argument("--only", default="", help="comma-separated task names")
    parser.add_argument("--fresh", default="", help="tasks whose training file the model was not trained on")
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    arguments = parser.parse_args()
    found = {"environment": msgspec.to_builtins(environment())} | run(arguments)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
