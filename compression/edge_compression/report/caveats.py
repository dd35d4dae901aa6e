"""What a reader must know before believing the numbers, in words: verdicts, hazards, what is faster and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_bench.task import Task
from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.pareto import LATENCY_STEP, UNDECIDED, loses
from edge_compression.guards import objections
from edge_compression.pass_api import EIGHT_BIT_FLOOR, IDLE, LEFT_OUT
from edge_compression.search.finalists import SearchResult
from edge_compression.search.prospects import NO_GAIN
from edge_compression.search.time_budget import STOPPED, USED_UP
from edge_contracts.codec import StrictRecord

GOOD_DROP = 1.0
"""Points an 8-bit variant may lose and still be called good in the report; in another unit what is allowed."""


class EightBit(StrictRecord, frozen=True, kw_only=True):
    """The verdict on 8-bit variants: the best one (the smallest good one, else the one that loses least), whether
    it is good, and which fell short with which loss."""

    best: str | None
    drop: float | None
    good: bool
    in_ladder: bool
    fell_short: dict[str, float]
    statement: str


def eight_bit(found: SearchResult) -> EightBit:
    """Judge the 8-bit variants."""
    unit = found.limits.unit
    most = GOOD_DROP if unit == "points" else found.limits.max_drop
    drops = {one.id: one.quality.drop for one in found.candidates if one.recipe.eight_bit and one.quality is not None}
    short = {name: drop for name, drop in drops.items() if drop > most}
    on_ladder = {name: drop for name, drop in drops.items() if name in found.ladder.rungs}
    sizes = {one.id: one.size for one in found.candidates}
    good = {name: drop for name, drop in on_ladder.items() if drop <= most}
    pool = good or on_ladder or drops
    best = min(pool, key=lambda name: sizes[name] if good else pool[name], default=None)
    if best is None:
        reason = why_no_eight_bit(found.candidates)
        statement = "no 8-bit variant could be built; the float original is kept" + (f": {reason}" if reason else "")
    elif not on_ladder:
        statement = f"no 8-bit variant is on the ladder; {best} came closest with {pool[best]:.2f} {unit} lost"
    else:
        statement = f"{best} {loses(pool[best], unit)}"
    return EightBit(
        best=best,
        drop=None if best is None else pool[best],
        good=best is not None and pool[best] <= most,
        in_ladder=bool(on_ladder),
        fell_short=short,
        statement=statement,
    )


STORING = ("weight_only", "mixed_weights", "tflite_int8", NO_GAIN)
"""The passes that ask least of a model: what they cannot store, no other can; and what is known before any pass."""


def why_no_eight_bit(candidates: Iterable[Candidate]) -> str | None:
    """Return why not even the weights could be stored in 8 bits, in the words of the pass that would have; None where
    none of these passes was asked."""
    reasons = [one.reason.partition(": ") for one in candidates if one.quality is None and one.reason is not None]
    return next((text for step, _, text in reasons if step in STORING and text), None)


def fastest(found: SearchResult) -> str:
    """Return the rung with the least latency on this host."""
    return min(_rungs(found), key=lambda one: one.costs().latency_ms).id


def notes(task: Task, found: SearchResult, confidence: float) -> tuple[str, ...]:
    """Return the notes, the general ones first."""
    facts = (*found.outlook, *_samples(task, found))
    general = (*facts, *cut_short(found.candidates), *half_already(found.candidates))
    return (*general, *_verdicts(found, confidence), *_speed(found), *_hazards(found), *_passes_left_out(found))


def _rungs(found: SearchResult) -> list[Candidate]:
    by_id = {one.id: one for one in found.candidates}
    return [by_id[name] for name in found.ladder.rungs]


def _samples(task: Task, found: SearchResult) -> Iterator[str]:
    if task.overlap:
        yield (
            f"{task.overlap} of {task.calibration.shape[0]} calibration samples are evaluation samples too: "
            "quality may be flattered"
        )
    if task.split:
        aside = task.calibration.shape[0]
        yield f"{aside} of the samples were set aside for calibration, by a fixed seed: the task has none of its own"
    for tensor, samples in zip(found.tensors, found.samples, strict=True):
        if samples is not None:
            yield from objections(tensor, samples.reshape(-1, *samples.shape[2:]) if task.sequences else samples)
    missed = sum(one.status == "not tried" and one.reason in (USED_UP, STOPPED) for one in found.candidates)
    if missed:
        yield f"{missed} recipes were not tried: the time ran out or the search was stopped; use a longer --budget"
    judged = sum(one.quality is not None for one in found.candidates)
    count, held_back = found.x.shape[0], found.confirming.stop - found.confirming.start
    if held_back == 0:
        yield (
            f"the same {count} samples chose among {judged} candidates and judge the rungs: their losses may be "
            "underestimated"
        )
        return
    yield f"{count - held_back} samples chose among {judged} candidates, {held_back} others confirm the rungs"
    for one in _rungs(found):
        if one.choosing is not None and one.confirmation is not None and not one.is_float:
            yield (
                f"{one.id} lost {one.choosing.drop:.2f} {found.limits.unit} on the samples that chose it and "
                f"{one.confirmation.drop:.2f} on the held-back ones"
            )


def cut_short(candidates: Iterable[Candidate]) -> Iterator[str]:
    """Say which models were trained for fewer steps than their recipes ask for."""
    short = [
        f"{one.id} ({change['steps']} of {change['steps_wanted']})"
        for one in candidates
        for change in one.changes
        if int(change.get("steps", 0)) < int(change.get("steps_wanted", 0))
    ]
    if short:
        yield f"trained for fewer steps than asked for, because time ran out: {', '.join(short)}; use a longer --budget"


def half_already(candidates: Iterable[Candidate]) -> Iterator[str]:
    """Say of a model whose weights come in 16 bits how small 8 can make it."""
    shares = [
        float(change[EIGHT_BIT_FLOOR]) for one in candidates for change in one.changes if EIGHT_BIT_FLOOR in change
    ]
    if shares:
        yield f"the original's weights are float16 already: in 8 bits they alone take {max(shares):.2f} of its bytes"


def _verdicts(found: SearchResult, confidence: float) -> Iterator[str]:
    for one in _rungs(found):
        if one.quality is None or one.is_float:
            continue
        interval, limit = one.quality.drop_interval, found.limits.max_drop
        if one.quality.undecided:
            yield (
                f"{one.id}: {one.quality.samples} samples cannot resolve the loss limit (95 % interval "
                f"{interval.low:.2f} to {interval.high:.2f} {found.limits.unit}); kept because of --accept-undecided"
            )
        elif interval.high > limit:
            yield (
                f"{one.id} loses at most {one.quality.bound:.2f} {found.limits.unit} with {confidence:.0%} confidence; "
                f"the 95 % interval, {interval.low:.2f} to {interval.high:.2f}, reaches beyond the limit of {limit:g}"
            )
    undecided = [
        one.id for one in found.candidates if one.status == "left out" and (one.reason or "").startswith(UNDECIDED)
    ]
    if undecided:
        yield f"undecided and left out (keep them with --accept-undecided): {', '.join(sorted(undecided))}"


def _speed(found: SearchResult) -> Iterator[str]:
    original, name = found.timing.latency.p50, fastest(found)
    ratios = {one.id: one.costs().latency_ms / original for one in found.candidates if one.measured is not None}
    yield f"the fastest rung on this CPU is {name}, {ratios[name]:.2f} times the original's latency"
    for one in _rungs(found):
        if ratios[one.id] > LATENCY_STEP:
            yield f"{one.id} takes {ratios[one.id]:.2f} times the original's latency on this CPU; it is smaller"
    eight = [ratios[one.id] for one in found.candidates if one.recipe.eight_bit and one.id in ratios]
    if eight and min(eight) > 1.0:
        yield (
            f"8 bits are not faster than float on this CPU: the fastest of {len(eight)} 8-bit variants takes "
            f"{min(eight):.2f} times the original's latency"
        )


def _passes_left_out(found: SearchResult) -> Iterator[str]:
    """Say of every rung which passes of its recipe were left out, but for those that had nothing to do: the float
    original's are those of all others too."""
    for one in _rungs(found):
        for change in one.changes:
            if LEFT_OUT in change and IDLE not in change:
                yield f"{one.id}: {change['pass']} was left out: {change[LEFT_OUT]}"


def _hazards(found: SearchResult) -> Iterator[str]:
    for one in found.candidates:
        if one.exactness is not None and one.exactness.hazard is not None:
            yield f"{one.id}: {one.exactness.hazard}"
    for one in _rungs(found):
        if one.quality is not None and not one.is_float:
            yield from (f"{one.id}: {text}" for text in found.jury.doubts(one.quality))
            if one.score_maps:
                names = ", ".join(made.of for made in one.score_maps)
                yield f"{one.id}: its scores ({names}) are mapped to the original's, on devices too"
