"""Replay: what was asked of a device is asked again of one or two releases, and the answers are held side by side.

With one release, its answers are compared with those the device gave; with two, with each other. The answers come from
the runtime that devices serve with, guards and steps included. Counting is in `edge_agent.answer_comparison`, opening
captures in `edge_agent.capture.ring`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_agent.answer_comparison import AnswerDifference, Comparison, difference_quantile, wilson
from edge_agent.bundle import Bundle, open_bundle
from edge_agent.capture.record import CapturedRequest, arrays, decode_captured
from edge_agent.capture.ring import CaptureRecord
from edge_agent.errors import TensorError
from edge_agent.fallback_ladder import LadderRelease, build_ladder
from edge_agent.inference.answer_diff import AnswerComparer
from edge_agent.inference.runtime import Runtime
from edge_agent.ports import Array
from edge_contracts.errors import ContractError, OperatorError
from edge_contracts.manifest import Manifest

WORST = 10
"""Differences told of by record, the worst."""


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """One record whose answers differ. `record` counts all records from 0, `time` is seconds since the epoch."""

    record: int
    file: str
    time: float
    served_by: str
    before: str | None
    after: str | None
    confidence_shift: float | None
    largest_difference: float | None


class ClassReport(msgspec.Struct, frozen=True, kw_only=True):
    """Of the records that were one class before: how many there are, and how many are still."""

    records: int
    agreed: int


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found. `before` and `after` name the sides. `changed` records have another class or, without
    classes, a difference over the tolerance; `unfit` do not fit a release; `silent` have no answer on a side.
    `low` and `high` are the 95 % Wilson interval of the agreement."""

    before: str
    after: str
    records: int
    compared: int
    changed: int
    unfit: int
    silent: int
    damaged: tuple[str, ...]
    agreement: float | None
    low: float | None
    high: float | None
    confidence_shift: float | None
    difference_median: float | None
    difference_p90: float | None
    difference_p99: float | None
    classes: dict[str, ClassReport]
    confusion: dict[str, int]
    worst: tuple[Worst, ...]


@dataclass(kw_only=True)
class _Found:
    """What is counted while a replay goes on."""

    comparison: Comparison = field(default_factory=Comparison)
    classes: dict[str, list[int]] = field(default_factory=dict)
    worst: list[tuple[tuple[bool, float], int, Worst]] = field(default_factory=list)
    records: int = 0
    changed: int = 0
    unfit: int = 0
    silent: int = 0
    first_misfit: str = ""


class Side:
    """One release that answers."""

    def __init__(self, folder: Path, variant: str | None) -> None:
        """Load a variant of the bundle, by default its first. Raises BundleError, ContractError, OperatorError."""
        self.bundle: Bundle = open_bundle(folder)
        manifest = self.manifest = self.bundle.manifest
        names = [each.id for each in manifest.variants]
        if variant is not None and variant not in names:
            raise OperatorError(f"{manifest.name} {manifest.version} has {', '.join(names)}", subject="--variant")
        release = LadderRelease(
            role="local", folder=str(folder), manifest_sha256=self.bundle.manifest_sha256, manifest=manifest
        )
        wanted = variant or names[0]
        rungs = [rung for rung in build_ladder([release]) if rung.variant == wanted]
        self.name = f"{manifest.name} {manifest.version}/{wanted}"
        self._runtime = Runtime(rungs)
        if self._runtime.warm() != rungs[0].served_by:
            raise OperatorError(f"variant {wanted} cannot be loaded here", subject=str(folder))

    def answer(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Return what it answers, copied; nothing where its guards refuse. Raises TensorError for a request that does
        not fit."""
        answer = self._runtime.infer(tensors)
        if answer.model_sha256 is None:
            return {}
        return {name: array.copy() for name, array in answer.outputs.items()}


def check_inputs(a: Manifest, b: Manifest) -> None:
    """Refuse two releases that are not asked in the same way. Raises OperatorError naming the first field of their
    inputs that differs."""
    if len(a.inputs) != len(b.inputs):
        raise OperatorError(f"{len(a.inputs)} and {len(b.inputs)}: not the same inputs", subject="manifest.inputs")
    for index, (one, two) in enumerate(zip(a.inputs, b.inputs, strict=True)):
        for name in ("name", "dtype", "shape", "sample"):
            left, right = getattr(one, name), getattr(two, name)
            if name == "sample":  # how it is mapped may differ: that is part of a release; what is sent may not
                name, left, right = "sample.dtype", left.dtype, right.dtype
            if left != right:
                text = f"{left} in {a.version}, {right} in {b.version}: what one was asked, the other cannot be asked"
                raise OperatorError(text, subject=f"manifest.inputs[{index}].{name}")


def replay(
    sides: tuple[Side, Side | None],
    records: Iterable[CaptureRecord],
    *,
    tolerance: float,
    damaged: list[str],
    progress: Callable[[int], None],
) -> ReplayReport:
    """Answer every record again and report. `damaged` is filled by whoever reads the records; `progress` is told how
    many are done. Raises OperatorError if not one record fits, naming the tensor."""
    a, b = sides
    if b is not None:
        check_inputs(a.manifest, b.manifest)
    comparer = AnswerComparer(a.manifest, a.manifest if b is None else b.manifest)
    found = _Found()
    for record in records:
        try:
            _replay_one(found, comparer, sides, record, tolerance)
        except (TensorError, ContractError) as error:
            found.unfit += 1
            found.first_misfit = found.first_misfit or f"record {found.records}: {error}"
        found.records += 1
        progress(found.records)
    if found.records and found.unfit == found.records:
        hint = "give the bundle of the model that was captured"
        raise OperatorError(f"no record matches {a.name}; {found.first_misfit}", subject="captures", hint=hint)
    names = ("what was answered", a.name) if b is None else (a.name, b.name)
    return _report(found, names, damaged)


def _replay_one(
    found: _Found, comparer: AnswerComparer, sides: tuple[Side, Side | None], record: CaptureRecord, tolerance: float
) -> None:
    served = decode_captured(record.content)
    tensors = arrays(served.inputs)
    first = sides[0].answer(tensors)
    before, after = (arrays(served.outputs), first) if sides[1] is None else (first, sides[1].answer(tensors))
    if not before or not after:
        found.silent += 1
        return
    difference = comparer.compare(before, after)
    found.comparison.add(difference, 0, 0)
    changed = not difference.agrees if difference.agrees is not None else not difference.largest <= tolerance
    found.changed += changed
    if difference.before is not None:
        seen = found.classes.setdefault(difference.before, [0, 0])
        seen[0] += 1
        seen[1] += not changed
    _remember(found, difference, served, record, changed=changed)


def _remember(
    found: _Found, difference: AnswerDifference, served: CapturedRequest, record: CaptureRecord, *, changed: bool
) -> None:
    """Keep the record if it is among the worst: changed ones first, then by how far the numbers are apart."""
    largest = difference.largest if math.isfinite(difference.largest) else math.inf
    if not changed and largest == 0.0:
        return
    worst = Worst(
        record=found.records,
        file=f"{record.file}#{record.number}",
        time=served.time,
        served_by=served.served_by,
        before=difference.before,
        after=difference.after,
        confidence_shift=difference.shift,
        largest_difference=largest if math.isfinite(largest) else None,
    )
    entry = ((changed, largest), -found.records, worst)
    if len(found.worst) < WORST:
        heapq.heappush(found.worst, entry)
    else:
        heapq.heappushpop(found.worst, entry)


def _report(found: _Found, names: tuple[str, str], damaged: list[str]) -> ReplayReport:
    counted = found.comparison
    low, high = wilson(counted.agreed, counted.classified)
    classified = counted.classified > 0
    quantiles = [_finite(difference_quantile(counted.differences, share)) for share in (0.5, 0.9, 0.99)]
    return ReplayReport(
        before=names[0],
        after=names[1],
        records=found.records,
        compared=counted.compared,
        changed=found.changed,
        unfit=found.unfit,
        silent=found.silent,
        damaged=tuple(damaged),
        agreement=counted.agreed / counted.classified if classified else None,
        low=low if classified else None,
        high=high if classified else None,
        confidence_shift=counted.shift_sum / sum(counted.shifts) if sum(counted.shifts) else None,
        difference_median=quantiles[0],
        difference_p90=quantiles[1],
        difference_p99=quantiles[2],
        classes={name: ClassReport(records=seen[0], agreed=seen[1]) for name, seen in sorted(found.classes.items())},
        confusion=counted.confusion,
        worst=tuple(worst for _, _, worst in sorted(found.worst, key=lambda entry: entry[:2], reverse=True)),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
