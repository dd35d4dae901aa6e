"""What to try next, in sentences with the option or field that does it. Pure: decided from a report alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_compression.report.gains import closest, fate_of, gained, lost, sized
from edge_compression.report.model import Report
from edge_compression.search.time_budget import STOPPED, USED_UP

MOST = 6
"""Pieces of advice at most: a longer list is not read."""

LOADED = 0.5
"""Load of the machine for each core above which its latencies are doubted."""

FEW = 800
"""Evaluation samples below which none are kept back to confirm what was chosen."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to try: why, and what to type or change (`do`, empty where it is in `why`)."""

    why: str
    do: str = ""

    @property
    def line(self) -> str:
        return f"{self.why}: {self.do}" if self.do else self.why


def advice(report: Report) -> tuple[Advice, ...]:
    """Return what to try next, the most promising first."""
    others = [one for one in report.candidates if one.status != "kept" and one.quality is not None]
    if not others and not gained(report):
        return (
            Advice(why="nothing of this model could be made smaller; serve it as it is", do="edgewright bundle create"),
        )
    found = (*_loss(report), *_undecided(report), *_samples(report), *_time(report), *_machine(report), *_use(report))
    return found[:MOST]


def _loss(report: Report) -> Iterator[Advice]:
    near = closest(report)
    if near is None or near.quality is None or near.quality.drop <= report.max_drop:
        return
    smallest = min((one.size for one in gained(report)), default=report.original_size)
    if near.size >= smallest:
        return
    more = f"{near.id} has {sized(near.size)} but {lost(near, report)}, the limit is {report.max_drop:g} {report.unit}"
    option = f"--max-drop {near.quality.bound:.2f}" if report.unit == "points" else "a larger --max-drop"
    yield Advice(why=f"if more may be lost, {more}", do=option)


def _undecided(report: Report) -> Iterator[Advice]:
    names = [one.id for one in report.candidates if fate_of(one) == "undecided"]
    if names:
        what = f"{len(names)} variants are undecided on {report.evaluation_samples} samples ({names[0]} is one)"
        yield Advice(why=what, do="more samples in the task's data, or --accept-undecided")


def _samples(report: Report) -> Iterator[Advice]:
    if report.calibration_overlap:
        what = f"{report.calibration_overlap} calibration samples are evaluation samples too, which flatters the scores"
        yield Advice(why=what, do="other samples in the task's calibration array")
    if not report.confirmation_samples:
        what = f"the same {report.evaluation_samples} samples chose and judged"
        yield Advice(why=what, do=f"give {FEW} or more, of which half then only confirm")
    if any("data.train" in (one.reason or "") for one in report.candidates):
        yield Advice(why="recipes that prune and then recover by training were not tried", do="data.train in the task")


def _time(report: Report) -> Iterator[Advice]:
    missed = sum(one.status == "not tried" and one.reason in (USED_UP, STOPPED) for one in report.candidates)
    if missed:
        yield Advice(why=f"{missed} recipes were not tried for want of time", do="a longer --budget")


def _machine(report: Report) -> Iterator[Advice]:
    machine = report.environment
    if machine.load > LOADED * machine.cores:
        what = f"this machine was busy (load {machine.load:.1f} on {machine.cores} cores): its latencies are rough"
        yield Advice(why=what, do="run the command again when it is idle")


def _use(report: Report) -> Iterator[Advice]:
    if gained(report):
        yield Advice(why="latency on the device itself", do="edgewright bench measure BUNDLE --task TASK.toml there")
