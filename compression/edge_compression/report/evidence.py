"""What a loss consists of: which samples a rung answers otherwise and how, groups of samples, confusion, precision over
recall, thresholds that moved. It is shown to people and never travels with a bundle: samples may be private.

Pure: a search's arrays in, records out. Boxes are matched in `box_evidence`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_bench.judged import PIXELS_FROM, JudgedAnswer
from edge_bench.metrics.registry import OWN_RESAMPLES
from edge_bench.task import Task
from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.limits import OutputLimit, as_loss
from edge_compression.evaluation.quality import Compared
from edge_compression.report.box_evidence import BoxCompared, Curve, DrawnBox, compare_boxes
from edge_compression.report.model import score_unit
from edge_compression.report.sample_pictures import SampleView, view
from edge_compression.search.finalists import SearchResult
from edge_contracts.answering import Nms, Over
from edge_contracts.codec import StrictRecord
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import scores_of

Array = NDArray[Any]
Fate = Literal["lost", "won", "changed"]

SHOWN = 10
"""Samples shown of each output of a rung, those that matter most first."""

MOST_CLASSES = 16
"""Classes up to which confusion is a matrix; beyond, the pairs that changed most are listed."""

MOST_GROUPS = 30
"""Groups of samples that are listed, the worst first."""

_ORDER: dict[Fate, int] = {"lost": 0, "changed": 1, "won": 2}


class Change(StrictRecord, frozen=True, kw_only=True):
    """One sample that is answered otherwise: `sample` is its place in the data, `lost`: it was right and is wrong, or
    worse; `won` the other way round; `changed`: both wrong, or nobody says what is right. `weight` orders them."""

    sample: int
    fate: Fate
    truth: str
    before: str
    after: str
    weight: float
    boxes: tuple[DrawnBox, ...] = ()
    extent: tuple[float, float] = (0.0, 0.0)


class Group(StrictRecord, frozen=True, kw_only=True):
    """The score of a group of samples before and after, and what it loses in the output's unit."""

    name: str
    samples: int
    before: float
    after: float
    lost: float


class Confusion(StrictRecord, frozen=True, kw_only=True):
    """Counts of samples (of pixels, where each has a class): `before[i][j]` of class i that the original calls j. Where
    there are many classes, `pairs` has (truth, answer, before, after) of those that changed most."""

    labels: tuple[str, ...]
    unit: str
    before: tuple[tuple[int, ...], ...] = ()
    after: tuple[tuple[int, ...], ...] = ()
    pairs: tuple[tuple[str, str, int, int], ...] = ()


class OutputEvidence(StrictRecord, frozen=True, kw_only=True):
    """One output of a rung. `counts` of samples by fate; `changes` shows some of them; `groups_of` says what the groups
    are; `has_truth`: the task says what is right."""

    output: str
    metric: str
    unit: str
    score_unit: str
    samples: int
    has_truth: bool
    counts: dict[str, int]
    changes: tuple[Change, ...]
    groups_of: str
    groups: tuple[Group, ...]
    confusion: Confusion | None
    curve: Curve | None


class Moved(StrictRecord, frozen=True, kw_only=True):
    """A threshold of the original's scores and where it lies among the variant's own: devices map it."""

    of: str
    original: float
    own: float


class RungEvidence(StrictRecord, frozen=True, kw_only=True):
    """What a rung loses and where."""

    id: str
    outputs: tuple[OutputEvidence, ...]
    moved: tuple[Moved, ...]


class SampleEvidence(StrictRecord, frozen=True, kw_only=True):
    """The evidence of all rungs but the float one. `views` shows the samples by place; `data` names the array they are
    of; `missing` are outputs of which there is none, with the reason."""

    data: str
    rungs: tuple[RungEvidence, ...]
    views: dict[str, SampleView]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """One judged output: the tables, the answers of both, the truth and what names its classes."""

    one: JudgedAnswer
    limit: OutputLimit
    tables: Compared
    before: Any
    after: Any
    truth: Any
    labels: Sequence[str]


def gather(task: Task, found: SearchResult) -> SampleEvidence:
    """Return the evidence of a search's rungs."""
    by_id = {one.id: one for one in found.candidates}
    rungs = [by_id[name] for name in found.ladder.rungs if not by_id[name].is_float]
    missing: list[str] = []
    made = tuple(_rung(task, found, one, missing) for one in rungs if one.outputs)
    places = {change.sample for rung in made for output in rung.outputs for change in output.changes}
    where = {int(place): index for index, place in enumerate(found.order)}
    views = {str(place): view(found.x[where[place]], whole=task.sequences) for place in sorted(places)}
    data = "evaluation sample" if task.split else "sample"
    return SampleEvidence(data=data, rungs=made, views=views, missing=tuple(dict.fromkeys(missing)))


UNLOOKED = (EdgewrightError, ValueError, IndexError, TypeError, MemoryError)
"""What a look at answers of unforeseen shapes may end with: a search's result is not lost for that."""


def _rung(task: Task, found: SearchResult, candidate: Candidate, missing: list[str]) -> RungEvidence:
    jury, maps = found.jury, candidate.score_maps
    tables = jury.tables(candidate.outputs, maps)
    before, after = jury.answered(), jury.answered(candidate.outputs, maps)
    outputs = []
    for table, limit, (one, own, truth), (_, other, _) in zip(tables, jury.limits, before, after, strict=True):
        pair = _Pair(one=one, limit=limit, tables=table, before=own, after=other, truth=truth, labels=task.file.labels)
        try:
            outputs.append(_output(task, found, pair))
        except UNLOOKED as error:
            missing.append(f"{one.name} ({one.metric.name}): {str(error)[:200]}")
    return RungEvidence(id=candidate.id, outputs=tuple(outputs), moved=tuple(_moved(task, candidate)))


def _output(task: Task, found: SearchResult, pair: _Pair) -> OutputEvidence:
    known = named_classes(pair.one, pair.before, pair.after, pair.truth)
    boxes = None
    if pair.one.metric.sort == "boxes":
        boxes = compare_boxes(pair.before, pair.after, pair.truth, pair.one.parameters.threshold)
        changes = list(_box_changes(task, boxes))
    elif known is not None and known[0].ndim == 1:
        changes = list(_flips(pair, known))
    else:
        changes = list(_moves(pair))
    counts: dict[str, int] = {fate: sum(one.fate == fate for one in changes) for fate in _ORDER}
    chosen = sorted(changes, key=lambda one: (_ORDER[one.fate], -one.weight, one.sample))[:SHOWN]
    groups_of, groups = _groups(pair, found.slices, known)
    return OutputEvidence(
        output=pair.one.name,
        metric=pair.one.metric.name,
        unit=pair.limit.unit,
        score_unit=score_unit(pair.one, pair.limit),
        samples=len(pair.before),
        has_truth=pair.one.truth is not None,
        counts=counts,
        changes=tuple(_placed(one, found.order) for one in chosen),
        groups_of=groups_of,
        groups=groups,
        confusion=None if known is None else confusion(known, pair.labels),
        curve=None if boxes is None else boxes.curve,
    )


def _placed(one: Change, order: Array) -> Change:
    return msgspec.structs.replace(one, sample=int(order[one.sample]))


Classes = tuple[Array, Array, Array]
"""The classes the original names, those the rung names, and the true ones."""


def named_classes(one: JudgedAnswer, before: Any, after: Any, truth: Any) -> Classes | None:
    """Return which classes both name and which are right, None where answers name none."""
    if not isinstance(before, np.ndarray) or not isinstance(truth, np.ndarray) or before.ndim < 1:
        return None
    metric, axis, threshold = one.metric.name, one.parameters.axis, one.parameters.threshold
    if metric in ("top1", "top5", "f1", "balanced_accuracy", "miou", "pixel_accuracy") and before.ndim > 1:
        return before.argmax(axis=axis), after.argmax(axis=axis), truth.astype(np.intp)
    if metric in ("accuracy_at", "auroc", "average_precision"):
        if before.shape != truth.shape:
            return None
        if before.ndim == 2 and before.shape[1] > 1 and metric != "accuracy_at":
            return before.argmax(axis=1), after.argmax(axis=1), truth.argmax(axis=1)
        least = 0.5 if threshold is None else threshold
        flat = [np.asarray(part).reshape(len(part), -1).squeeze(-1) if part.size == len(part) else part
                for part in (before, after, truth)]  # fmt: skip
        return (flat[0] >= least).astype(np.intp), (flat[1] >= least).astype(np.intp), flat[2].astype(np.intp)
    return None


def class_name(number: int, labels: Sequence[str]) -> str:
    """Return what a class is called."""
    return labels[number] if number < len(labels) else f"class {number}"


def _flips(pair: _Pair, known: Classes) -> Iterator[Change]:
    before, after, truth = known
    has_truth = pair.one.truth is not None
    for index in np.flatnonzero(before != after).tolist():
        right, was, now = int(truth[index]), int(before[index]), int(after[index])
        fate: Fate = "changed"
        if has_truth:
            fate = "lost" if was == right else "won" if now == right else "changed"
        yield Change(
            sample=index,
            fate=fate,
            truth=class_name(right, pair.labels) if has_truth else "",
            before=f"{class_name(was, pair.labels)}{_sure(pair.before, index, was)}",
            after=f"{class_name(now, pair.labels)}{_sure(pair.after, index, now)}",
            weight=_margin(pair.before, index),
        )


def _sure(answers: Array, index: int, name: int) -> str:
    """Return how sure an answer is: percent of probabilities, else the score itself."""
    row = np.asarray(answers[index], np.float64).reshape(-1)
    value = float(row[min(name, row.size - 1)])
    shares = bool((row >= 0.0).all()) and (row.size == 1 or abs(float(row.sum()) - 1.0) < 0.01) and value <= 1.0
    return f" ({100.0 * value:.0f} %)" if shares else f" (score {value:.3g})"


def _margin(answers: Array, index: int) -> float:
    row = np.sort(np.asarray(answers[index], np.float64).reshape(-1))
    return float(row[-1] - row[-2]) if row.size > 1 else abs(float(row[0]) - 0.5)


def _moves(pair: _Pair) -> Iterator[Change]:
    """Yield of every sample by how much its own score changes, where the metric has one of a sample alone."""
    table, other = pair.tables.before, pair.tables.after
    if table.resamples == OWN_RESAMPLES:
        return  # a metric of the user's may be slow
    before, after = each(table), each(other)
    better, unit = pair.one.metric.better, score_unit(pair.one, pair.limit)
    fidelity = pair.one.metric.unit == "fidelity"
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        if not (np.isfinite(was) and np.isfinite(now)) or was == now:
            continue
        gain = better * (now - was)
        yield Change(
            sample=index, fate="lost" if gain < 0 else "won", truth="", weight=abs(float(gain)),
            before=_told(pair, float(was), unit, fidelity), after=_told(pair, float(now), unit, fidelity),
        )  # fmt: skip


def _told(pair: _Pair, value: float, unit: str, fidelity: bool) -> str:
    if fidelity:
        return f"{100.0 * value:.3g} % of the original's answer away"
    shown = f"{100.0 * value:.1f} %" if unit == "%" else f"{value:.4g} {unit}".rstrip()
    return f"{pair.one.metric.name} {shown}"


_CHUNK = 256


def each(table: Any) -> Array:
    """Return a metric of every sample alone [N]; NaN where it has none."""
    if table.means is not None:
        return np.asarray(table.means)
    found = []
    for start in range(0, table.count, _CHUNK):
        stop = min(start + _CHUNK, table.count)
        weights = np.zeros((stop - start, table.count))
        weights[np.arange(stop - start), np.arange(start, stop)] = 1.0
        with np.errstate(all="ignore"):
            found.append(np.asarray(table.scores(weights), np.float64))
    return np.concatenate(found)


def _box_changes(task: Task, boxes: BoxCompared) -> Iterator[Change]:
    step = next((one for one in task.file.answer if isinstance(one, Nms)), None)
    reach = max((box.x2 for one in boxes.images for box in one.drawn), default=0.0)
    extent = (1.0, 1.0)
    if reach > PIXELS_FROM and step is not None and step.image is not None:
        extent = (float(step.image[1]), float(step.image[0]))
    for one in boxes.images:
        gain = (one.after_found - one.after_false) - (one.before_found - one.before_false)
        if one.same and gain == 0:
            continue
        yield Change(
            sample=one.image, fate="lost" if gain < 0 else "won" if gain > 0 else "changed", weight=float(abs(gain)),
            truth=f"{one.true} boxes", before=f"{one.before_found} found, {one.before_false} false",
            after=f"{one.after_found} found, {one.after_false} false", boxes=one.drawn, extent=extent,
        )  # fmt: skip


def _groups(pair: _Pair, slices: Array | None, known: Classes | None) -> tuple[str, tuple[Group, ...]]:
    """Return what the groups are and the groups: the task's slices, else the true classes."""
    keys, of = slices, "slice"
    if keys is None and known is not None and known[0].ndim == 1 and pair.one.truth is not None:
        keys, of = np.array([class_name(int(one), pair.labels) for one in known[2]]), "true class"
    if keys is None or len(keys) != len(pair.before):
        return of, ()
    names = np.unique(keys)
    if len(names) < 2 or len(names) > 10 * MOST_GROUPS:
        return of, ()
    if of == "true class" and known is not None:
        return of, _recalls(known, keys, names)
    weights = np.stack([(keys == name).astype(np.float64) for name in names])
    with np.errstate(all="ignore"):
        before, after = pair.tables.before.scores(weights), pair.tables.after.scores(weights)
    lost = [as_loss(pair.one.metric, pair.limit, float(a), float(b)) for a, b in zip(before, after, strict=True)]
    found = [
        Group(name=str(name), samples=int(row.sum()), before=float(a), after=float(b), lost=float(c))
        for name, row, a, b, c in zip(names, weights, before, after, lost, strict=True)
        if np.isfinite(a) and np.isfinite(b)
    ]
    return of, _worst(found)


def _recalls(known: Classes, keys: Array, names: Array) -> tuple[Group, ...]:
    """Return how many of each true class are named so: a metric of one class alone says less or nothing."""
    before, after, truth = known
    found = []
    for name in names:
        own = keys == name
        a, b = float((before == truth)[own].mean()), float((after == truth)[own].mean())
        found.append(Group(name=str(name), samples=int(own.sum()), before=a, after=b, lost=100.0 * (a - b)))
    return _worst(found)


def _worst(found: list[Group]) -> tuple[Group, ...]:
    return tuple(sorted(found, key=lambda one: (-one.lost, one.name))[:MOST_GROUPS])


def confusion(known: Classes, labels: Sequence[str]) -> Confusion | None:
    """Return which true classes are named how often as which, before and after."""
    before, after, truth = (np.asarray(part).reshape(-1) for part in known)
    if not before.shape == after.shape == truth.shape or not truth.size or min(truth.min(), before.min()) < 0:
        return None
    count = int(max(part.max() for part in (before, after, truth))) + 1
    unit = "samples" if known[0].ndim == 1 else "pixels"
    names = tuple(class_name(index, labels) for index in range(count))
    if count <= MOST_CLASSES:
        was, now = (_counted(truth, part, count) for part in (before, after))
        return Confusion(labels=names, unit=unit, before=was, after=now)
    counts: dict[tuple[int, int], list[int]] = {}
    for place, part in enumerate((before, after)):
        pairs, many = np.unique(np.stack([truth, part]), axis=1, return_counts=True)
        for (right, said), number in zip(pairs.T.tolist(), many.tolist(), strict=True):
            counts.setdefault((right, said), [0, 0])[place] = number
    moved = sorted(counts.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
    chosen = [(names[i], names[j], a, b) for (i, j), (a, b) in moved[:SHOWN] if a != b]
    return Confusion(labels=(), unit=unit, pairs=tuple(chosen))


def _counted(truth: Array, said: Array, count: int) -> tuple[tuple[int, ...], ...]:
    table = np.bincount(truth * count + said, minlength=count * count).reshape(count, count)
    return tuple(tuple(int(value) for value in row) for row in table)


def _moved(task: Task, candidate: Candidate) -> Iterator[Moved]:
    """Yield where the thresholds of answer steps and metrics lie among a rung's own scores."""
    maps = {one.of: one for one in candidate.score_maps}
    asked = {one.threshold for one in task.judged if one.threshold is not None}
    for step in task.file.answer:
        if not isinstance(step, Nms | Over):
            continue
        own = step.score_over if isinstance(step, Nms) else step.threshold
        for name in scores_of(step):
            for value in sorted({own, *asked}) if name in maps else ():
                moved = float(np.interp(value, maps[name].original, maps[name].own))
                yield Moved(of=name, original=float(value), own=moved)
