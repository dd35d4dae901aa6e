"""Whether the turn of the device among those of its group lets work on a candidate begin and go on. Pure; what a turn
is says `edge_contracts.turns`."""

from __future__ import annotations

from edge_agent.update.record import CandidateRelease, UpdateRecord
from edge_contracts.turns import is_over, may_begin

TRIAL_SHARE = 0.5
"""Of what a turn holds beside the soak, this share is left for the trial when one begins."""


def may_try(candidate: CandidateRelease, now: float, *, clock_known: bool = True) -> bool:
    """Return whether a trial and the soak behind it would end within the device's turn. A device that cannot know the
    time waits; so does one whose rollout is paused."""
    turn, soak_s = candidate.turn, candidate.gates.soak_s
    if candidate.paused:
        return False
    if turn is None:
        return True
    room_s = max(0.0, turn.turn_s - 2 * turn.margin_s - soak_s)
    return clock_known and may_begin(turn, candidate.window, now, soak_s + TRIAL_SHARE * room_s)


def may_serve(candidate: CandidateRelease, now: float, *, clock_known: bool = True) -> bool:
    """Return whether the soak would end within the device's turn."""
    turn = candidate.turn
    if turn is None:
        return True
    return clock_known and may_begin(turn, candidate.window, now, candidate.gates.soak_s)


def has_overrun(record: UpdateRecord, now: float) -> bool:
    """Return whether the device is at work on its candidate beyond its turn. A shadow is not at work: it waits for its
    rollout, and what is served stays."""
    candidate = record.candidate
    if candidate is None or candidate.turn is None:
        return False
    live = record.state == "trial" or (record.state == "shadow" and candidate.mode == "live")
    at_work = live or (record.state == "active" and not record.committed)
    return at_work and is_over(candidate.turn, candidate.window, now)
