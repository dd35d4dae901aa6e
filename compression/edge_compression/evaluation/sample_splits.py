"""The evaluation set: the samples that every candidate is run on, in files, and the processes that run it.

The evaluation samples are taken in a fixed random order and cut into three: the first few screen a candidate, those and
the next choose among candidates, and where there are enough of them the rest is kept back to confirm what was chosen.
`evaluator` scores the answers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_bench.measure import Runner
from edge_bench.protocol import RunnerPlan
from edge_bench.task import Task
from edge_contracts.profile import DeviceProfile

Array = NDArray[Any]
Part = Literal["screen", "choose", "confirm"]
PARTS: tuple[Part, ...] = ("screen", "choose", "confirm")

CONFIRM_FROM = 800
"""Evaluation samples from which on half are kept back: with fewer, halves could not tell a point."""

MIN_SCREEN, MAX_SCREEN = 64, 512
SCREEN_SHARE = 0.25
"""Samples for screening: a quarter of those for choosing, within these bounds."""

EXACT_SAMPLES, EXACT_S = 64, 2.0
"""Samples for the run without optimizations and the seconds it is worth: a collapse shows in few."""

EXACT_CONFIRMED, EXACT_CONFIRMED_S = 256, 8.0
"""The same for what goes on the ladder: the floors that devices must reach rest on it."""

EXACT_LEAST, EXACT_SLOWER = 16, 4.0
"""However slow a model is, so many; and how much slower it is without optimizations."""


CALIBRATION = "calib_x.npy"
"""The name of the file with the calibration samples."""


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How many calibration and evaluation samples are used at most, and the hard limit of a process's memory."""

    calibration: int
    evaluation: int
    memory_mb: float


class EvaluationSet:
    """The samples of one search, written once into a folder of its own. `x`, `y` and `slices` are all evaluation
    samples in the order of the parts."""

    def __init__(self, task: Task, profile: DeviceProfile, settings: SplitSettings, folder: Path) -> None:
        self._task, self._threads, self._memory_mb = task, profile.model.threads, settings.memory_mb
        self._folder = folder
        order = np.random.default_rng(0).permutation(task.x.shape[0])[: settings.evaluation]
        self.x, self.y = task.x[order], task.y[order]
        self._slices = None if task.slices is None else task.slices[order]
        self.parts = cut(order.size)
        for part, indices in self.parts.items():
            np.save(self._file(part), self.x[indices], allow_pickle=False)
        self.calibration, self.count = folder / CALIBRATION, min(settings.calibration, task.calibration.shape[0])
        np.save(self.calibration, task.calibration[: self.count], allow_pickle=False)
        self.training = None if task.training is None else folder / "train_x.npy"
        if self.training is not None and task.training is not None:
            np.save(self.training, task.training, allow_pickle=False)

    def among(self, parts: Iterable[Part]) -> slice:
        """Return where the samples of consecutive parts are."""
        chosen = [self.parts[part] for part in parts]
        return slice(chosen[0].start, chosen[-1].stop)

    def slices(self, where: slice) -> Array | None:
        """Return the groups of these samples, if the task has any."""
        return None if self._slices is None else self._slices[where]

    def plan(self, model: Path, *, optimize: bool = True) -> RunnerPlan:
        """Return how a model of this task is run."""
        return RunnerPlan(
            model=str(model),
            format=self._task.format,
            samples=str(self._file("screen")),
            mapping=self._task.mapping,
            threads=self._threads,
            optimize=optimize,
            memory_limit_mb=self._memory_mb,
        )

    def answers(self, runner: Runner, parts: Iterable[Part], *, timeout_s: float) -> list[Array]:
        """Return a model's answers to the samples of parts, one array an output. Raises RunnerError."""
        found = [self._predict(runner, self._file(part), None, timeout_s) for part in parts if self._has(part)]
        return [np.concatenate(rows) for rows in zip(*found, strict=True)]

    def first(self, runner: Runner, count: int, *, timeout_s: float) -> Array:
        """Return the first output for the first evaluation samples, `count` at most. Raises RunnerError."""
        rows = [
            self._predict(runner, self._file(part), count - self.parts[part].start, timeout_s)[0]
            for part in PARTS
            if self._has(part) and self.parts[part].start < count
        ]
        return np.concatenate(rows)

    def calibrated(self, runner: Runner, *, timeout_s: float) -> Array:
        """Return the first output for the calibration samples. Raises RunnerError."""
        return self._predict(runner, self.calibration, None, timeout_s)[0]

    def keep(self, name: str, outputs: list[Array]) -> None:
        """Keep a model's answers in a file, for `kept`."""
        np.savez(self._folder / f"{name}.npz", allow_pickle=False, **_numbered(outputs))

    def kept(self, name: str) -> list[Array] | None:
        """Return the answers kept under this name, if any were."""
        path = self._folder / f"{name}.npz"
        return _outputs(path) if path.exists() else None

    def _predict(self, runner: Runner, samples: Path, count: int | None, timeout_s: float) -> list[Array]:
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".npz") as out:
            runner.predict(samples, Path(out.name), count=count, timeout_s=timeout_s)
            return _outputs(Path(out.name))

    def _has(self, part: Part) -> bool:
        return self.parts[part].stop > self.parts[part].start

    def _file(self, part: Part) -> Path:
        return self._folder / f"{part}.npy"


def exact_samples(most: int, seconds: float, sample_s: float) -> int:
    """Return how many samples are answered with exact arithmetic in so many seconds, when one takes `sample_s` with
    the engine's optimizations."""
    return int(np.clip(seconds / (EXACT_SLOWER * max(sample_s, 1e-9)), min(EXACT_LEAST, most), most))


def _numbered(outputs: list[Array]) -> dict[str, Array]:
    return {f"output_{index}": rows for index, rows in enumerate(outputs)}


def _outputs(path: Path) -> list[Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[f"output_{index}"] for index in range(len(arrays.files))]


def cut(count: int) -> dict[Part, slice]:
    """Return where the parts of so many samples are; without enough of them none are kept back."""
    choosing = count if count < CONFIRM_FROM else (count + 1) // 2
    screening = min(choosing, int(np.clip(SCREEN_SHARE * choosing, MIN_SCREEN, MAX_SCREEN)))
    return {
        "screen": slice(0, screening),
        "choose": slice(screening, choosing),
        "confirm": slice(choosing, count),
    }
