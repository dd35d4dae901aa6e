"""The evaluation set: the samples that every candidate is run on, in files, and the processes that run it.

The evaluation samples are taken in a fixed random order and cut into three: the first few screen a candidate, those and
the next choose among candidates, and where there are enough of them the rest is kept back to confirm what was chosen.
`evaluator` scores the answers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_bench.measure import Runner
from edge_bench.protocol import RunnerPlan
from edge_bench.scenario import write_samples
from edge_bench.task import Task
from edge_contracts.limits import MIB
from edge_contracts.manifest import Input
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


CALIBRATION = "calibration"
"""The name of the folder with the calibration samples."""

SPILL_BYTES = 32 * MIB
"""Answers larger than this are kept in files: a recognizer of 6,000 characters answers 300 samples with 250 MB."""


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How many calibration and evaluation samples are used at most, and the hard limit of a process's memory."""

    calibration: int
    evaluation: int
    memory_mb: float


class EvaluationSet:
    """The samples of one search, written once into a folder of its own. `samples` of each input, `x` of the first one,
    `y` and `slices` are all evaluation samples in the order of the parts; `order` is their place in the task's."""

    def __init__(self, task: Task, profile: DeviceProfile, settings: SplitSettings, folder: Path) -> None:
        self._task, self._threads, self._memory_mb = task, profile.model.threads, settings.memory_mb
        self._settings = settings
        self._folder = folder
        self.order = np.random.default_rng(0).permutation(task.count)[: settings.evaluation]
        order = self.order
        self.samples = [None if one.samples is None else one.samples[order] for one in task.inputs]
        self.x, self.y = task.x[order], task.y[order]
        self._slices = None if task.slices is None else task.slices[order]
        self.parts = cut(order.size)
        for part, indices in self.parts.items():
            write_samples([None if one is None else one[indices] for one in self.samples], self._file(part))
        self.count = min(settings.calibration, task.calibration.shape[0])
        self._sequences = folder / "calibration_sequences" if task.sequences else folder / CALIBRATION
        found = [None if one.calibration is None else one.calibration[: self.count] for one in task.inputs]
        write_samples(found, self._sequences)
        self.calibration = folder / CALIBRATION
        self.training = None if task.training is None or task.sequences else folder / "training"
        if self.training is not None:
            write_samples([one.training for one in task.inputs], self.training)

    @property
    def samples_count(self) -> int:
        """How many evaluation samples there are."""
        return int(self.order.size)

    def unroll(self, runner: Runner, tensors: Sequence[Input], names: Sequence[str], *, timeout_s: float) -> None:
        """Write the steps of the calibration sequences as samples of their own, each beside the state in which the
        original was: what is built is calibrated on them. Raises RunnerError."""
        if self.calibration == self._sequences:
            return
        outputs = dict(zip(names, self._predict(runner, self._sequences, None, timeout_s), strict=True))
        arrays = [self._steps(index, tensor, outputs) for index, tensor in enumerate(tensors)]
        steps = next(len(one) for one in arrays if one is not None)
        chosen = np.sort(np.random.default_rng(0).permutation(steps)[: self._settings.calibration])
        write_samples([None if one is None else one[chosen] for one in arrays], self.calibration)
        self.count = chosen.size

    def _steps(self, index: int, tensor: Input, outputs: dict[str, Array]) -> Array | None:
        if tensor.constant is not None:
            return None
        if tensor.feedback is None:
            sequences: Array = np.load(self._sequences / f"{index}.npy", allow_pickle=False)
            return sequences.reshape(-1, *sequences.shape[2:])
        states = outputs[tensor.feedback]
        before = np.zeros_like(states)
        before[:, 1:] = states[:, :-1]
        return before.reshape(-1, *tensor.resting_shape)

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
            inputs=self._task.fed,
            threads=self._threads,
            optimize=optimize,
            memory_limit_mb=self._memory_mb,
        )

    def answers(self, runner: Runner, parts: Iterable[Part], *, timeout_s: float) -> list[Array]:
        """Return a model's answers to the samples of parts, one array an output. Raises RunnerError."""
        found = [self._predict(runner, self._file(part), None, timeout_s) for part in parts if self._has(part)]
        return [np.concatenate(rows) for rows in zip(*found, strict=True)]

    def first(self, runner: Runner, count: int, *, timeout_s: float) -> list[Array]:
        """Return the answers to the first evaluation samples, `count` at most. Raises RunnerError."""
        found = [
            self._predict(runner, self._file(part), count - self.parts[part].start, timeout_s)
            for part in PARTS
            if self._has(part) and self.parts[part].start < count
        ]
        return [np.concatenate(rows) for rows in zip(*found, strict=True)]

    def calibrated(self, runner: Runner, *, timeout_s: float) -> list[Array]:
        """Return the answers to the calibration samples. Raises RunnerError."""
        return self._predict(runner, self._sequences, None, timeout_s)

    def spilled(self, outputs: list[Array]) -> list[Array]:
        """Return answers to be kept: large ones lie in files from then on, and memory has what is looked at."""
        return [self._spill(one) if one.nbytes > SPILL_BYTES else one for one in outputs]

    def _spill(self, array: Array) -> Array:
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".npy", delete=False) as file:
            np.save(file, array, allow_pickle=False)
        mapped: Array = np.load(file.name, mmap_mode="r", allow_pickle=False)
        return mapped

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
        return self._folder / part


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
