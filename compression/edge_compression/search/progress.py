"""What people see while a search runs: one line a step, or on a terminal the current front as it grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.pareto import dominates_preliminarily, loses

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Progress(Protocol):
    """Who watches a search. Called from several threads."""

    def said(self, text: str) -> None:
        """A step begins."""
        ...

    def judged(self, candidate: Candidate, known: Iterable[Candidate], original_size: int) -> None:
        """A candidate's fate is known; `known` are all so far."""
        ...


def front(known: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates that are still in the race and that no other one beats in drop, size and pace, smallest
    first."""
    racing = [one for one in tuple(known) if one.racing and one.quality is not None and one.pace is not None]
    best = [
        one
        for one in racing
        if not any(
            dominates_preliminarily(other.preliminary(), one.preliminary()) for other in racing if other is not one
        )
    ]
    return sorted(best, key=lambda one: (one.size, one.id))


def fate(candidate: Candidate, original_size: int) -> str:
    """Return one line about a candidate."""
    if candidate.quality is None or candidate.pace is None:
        return f"{candidate.id}: {candidate.status}: {candidate.reason}"
    quality = candidate.quality
    return (
        f"{candidate.id}: {loses(quality.drop)} (95 %: {quality.drop_interval.low:.2f} to "
        f"{quality.drop_interval.high:.2f} lost), {candidate.size / original_size:.2f} of the bytes, "
        f"{candidate.pace:.2f} of the latency"
    )


class Lines:
    """One line a step and one a candidate, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def said(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def judged(self, candidate: Candidate, known: Iterable[Candidate], original_size: int) -> None:
        names = ", ".join(one.id for one in front(known))
        self.said(f"{fate(candidate, original_size)}; front: {names}")


class LiveFront:
    """The current front as a table that is drawn again and again; a context manager."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._step, self._rows, self._size = "starting", list[Candidate](), 1
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveFront:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def said(self, text: str) -> None:
        self._step = text

    def judged(self, candidate: Candidate, known: Iterable[Candidate], original_size: int) -> None:
        self._rows, self._size = front(known), original_size
        self._step = fate(candidate, original_size)

    def _draw(self) -> Table:
        from rich.table import Table

        drawn = Table("front so far", "loses at most", "bytes", "latency", caption=self._step, caption_justify="left")
        for one in self._rows:
            first = one.preliminary()
            drawn.add_row(one.id, f"{first.loss:.2f}", f"{first.size / self._size:.2f}", f"{first.pace:.2f}")
        return drawn
