"""What is to be measured: the model files behind a path, which may be a model or a bundle, and what they are fed.

Measuring them is in `measure`; presenting the result in `report`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_agent.bundle import Bundle, open_bundle
from edge_agent.inference.conformal import Predictor, predictor
from edge_agent.inference.samples import read_arrays, sample_inputs
from edge_bench.protocol import FedInput, RunnerPlan
from edge_bench.task import FORMATS, Array, Task
from edge_contracts.errors import OperatorError
from edge_contracts.manifest import Format, SampleMapping

COVERAGE = 0.9
"""Share of answers whose set is to hold the truth: that of the thresholds that are checked."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model file to measure, under the name the report gives it. `predictor` applies a variant's own conformal
    threshold."""

    name: str
    model: Path
    format: Format
    predictor: Predictor | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The subjects and what they are fed: a .npy file of samples with their mapping, or a folder of such files for
    `inputs`; None for random inputs."""

    subjects: tuple[Subject, ...]
    samples: Path | None
    mapping: SampleMapping | None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: tuple[FedInput, ...] = ()

    def plan(self, subject: Subject, threads: int) -> RunnerPlan:
        """Return how a subject is measured."""
        return RunnerPlan(
            model=str(subject.model),
            format=subject.format,
            samples="" if self.samples is None else str(self.samples),
            mapping=self.mapping,
            inputs=self.inputs,
            threads=threads,
            shapes=dict(self.shapes),
        )


def scenario(path: Path, task: Task | None, variants: Collection[str], folder: Path) -> Scenario:
    """Return what lies at `path`; samples are unpacked into `folder`. The task's samples go before a bundle's golden
    ones. Raises OperatorError naming the path or variant, BundleError and ContractError for a bundle that does not
    hold."""
    bundle = open_bundle(path) if path.is_dir() else None
    subjects = _bundle_subjects(bundle, variants) if bundle is not None else (_model_subject(path, variants),)
    if task is not None:
        samples = write_samples([one.samples for one in task.inputs], folder / "samples")
        return Scenario(subjects=subjects, samples=samples, mapping=None, inputs=task.fed)
    if bundle is not None and bundle.manifest.golden is not None:
        golden, inputs = bundle.manifest.golden.file, bundle.manifest.inputs
        found = sample_inputs(read_arrays(bundle.path(golden), what=golden), bundle.manifest, what=golden)
        fed = tuple(
            FedInput(name=one.name, mapping=one.sample, constant=one.constant, feedback=one.feedback) for one in inputs
        )
        arrays = [array if one.sampled else None for array, one in zip(found, inputs, strict=True)]
        return Scenario(subjects=subjects, samples=write_samples(arrays, folder / "samples"), mapping=None, inputs=fed)
    return Scenario(subjects=subjects, samples=None, mapping=None)


def _model_subject(path: Path, variants: Collection[str]) -> Subject:
    if not path.is_file():
        raise OperatorError("no such model file or bundle folder", subject=str(path))
    if path.suffix not in FORMATS:
        raise OperatorError(f"{path.suffix!r} is not supported; use .onnx or .tflite", subject=str(path))
    if variants:
        raise OperatorError("only a bundle has variants", subject="--variants")
    return Subject(name=path.stem, model=path, format=FORMATS[path.suffix])


def _bundle_subjects(bundle: Bundle, variants: Collection[str]) -> tuple[Subject, ...]:
    known = {variant.id: variant for variant in bundle.manifest.variants}
    for name in variants:
        if name not in known:
            raise OperatorError(f"no variant {name[:80]!r}", subject="--variants", hint=f"known: {', '.join(known)}")
    chosen = [known[name] for name in variants] if variants else list(known.values())
    return tuple(
        Subject(
            name=one.id,
            model=bundle.model_path(one),
            format=one.format,
            predictor=predictor(bundle.manifest, one, COVERAGE),
        )
        for one in chosen
    )


def write_samples(arrays: Sequence[Array | None], folder: Path) -> Path:
    """Write the samples of each input that has any into a new folder, as `RunnerPlan.samples` wants them."""
    folder.mkdir()
    for index, array in enumerate(arrays):
        if array is not None:
            np.save(folder / f"{index}.npy", array, allow_pickle=False)
    return folder
