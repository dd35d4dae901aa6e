r"""The update of one slot as a state machine: its record, its events and the table of what may follow what.

    offered -> preflight -> downloading -> verified -> trial -> shadow -> active (soak) -> committed
                                    \______ rejected(reason) ______/        \-> rolled_back(reason)

The record is all that survives a power cut, and the supervisor is its only writer. `serving` changes at exactly two
places: activation puts the candidate there, uncommitted; rolling back puts `last_good` there. Nothing here acts:
downloading is in `edge_agent.updater`, trying in `edge_agent.trial`, swapping in `edge_agent.supervisor.slots.slot`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edge_agent.update.events import (
    Began,
    Crashed,
    Downloaded,
    Event,
    Expired,
    Fits,
    GateFailed,
    Held,
    Interrupted,
    Restarted,
    ShadowPassed,
    Shifted,
    Soaked,
    TrialBegan,
    TrialPassed,
    TurnOver,
    UpdateFailed,
    Wished,
    Withdrawn,
)
from edge_agent.update.preflight import REFUSED_FOR_GOOD
from edge_agent.update.record import (
    DAY_S,
    DEADLINES_S,
    MAX_ATTEMPTS,
    MAX_REBOOTS,
    MAX_REJECTED,
    MAX_TRIALS,
    MAX_UNCLEAN_STARTS,
    SOAK_GRACE_S,
    CandidateRelease,
    UpdateRecord,
    installed,
)
from edge_contracts.errors import DeviceError
from edge_contracts.state import UpdateState
from edge_contracts.turns import open_seconds

BEFORE_ACTIVE: frozenset[UpdateState] = frozenset(
    {"offered", "preflight", "downloading", "verified", "trial", "shadow"}
)
FETCHING: frozenset[UpdateState] = frozenset({"offered", "preflight", "downloading"})
SETTLED: frozenset[UpdateState] = frozenset({"idle", "committed", "rejected", "rolled_back"})


class TransitionError(DeviceError):
    """An event that cannot follow the state: a defect of the agent, refused rather than guessed at."""

    reason = "transition"


def advance(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    """Return the record after `event`, which happened at `now` (seconds since the epoch).

    Returns the very same record when the event changes nothing. Raises TransitionError when the event cannot happen
    in the record's state.
    """
    rule = ALWAYS.get(type(event)) or TABLE.get((record.state, type(event)))
    if rule is None:
        raise TransitionError(f"{type(event).__name__} cannot follow state {record.state!r}", subject=record.slot)
    return rule(record, event, now)


def _to(record: UpdateRecord, state: UpdateState, now: float, reason: str | None = None) -> UpdateRecord:
    limit = DEADLINES_S.get(state)
    deadline = None if limit is None else now + limit + _for_turns(record, state)
    return msgspec.structs.replace(record, state=state, since=now, deadline=deadline, reason=reason)


def _candidate(record: UpdateRecord) -> CandidateRelease:
    if record.candidate is None:
        raise TransitionError("no candidate", subject=record.slot)
    return record.candidate


def _remember(record: UpdateRecord, sha: str) -> tuple[str, ...]:
    return (*(old for old in record.rejected if old != sha), sha)[-MAX_REJECTED:]


def _without(rejected: tuple[str, ...], sha: str) -> tuple[str, ...]:
    return tuple(old for old in rejected if old != sha)


def _wished(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Wished)
    wish = event.candidate
    if wish.serial != record.serial:
        rejected = () if wish.again else record.rejected
        refused_under = {} if wish.again else record.refused_under
        record = msgspec.structs.replace(
            record, serial=wish.serial, rejected=rejected, refused_under=refused_under, retried={}
        )
    sha = wish.manifest_sha256
    if sha in record.rejected and event.retry:
        retried = record.retried | {sha: record.retried.get(sha, 0) + 1}
        record = msgspec.structs.replace(record, rejected=_without(record.rejected, sha), retried=retried)
    elif sha in record.refused_under:  # the updater has looked: the facts are others now
        record = msgspec.structs.replace(record, rejected=_without(record.rejected, sha))
    if sha in record.rejected:
        return record
    known = record.candidate is not None and record.candidate.manifest_sha256 == wish.manifest_sha256
    if known and record.state not in SETTLED:
        return msgspec.structs.replace(record, candidate=wish)
    if record.serving == installed(wish):
        if record.state in SETTLED:
            return record
        # Wanted is what is served already: whatever else was on its way is given up.
        settled = msgspec.structs.replace(record, candidate=None, attempts=0, trials=0)
        return _to(settled, "committed", now) if record.committed else _soak(record, wish, now)
    fresh = msgspec.structs.replace(record, candidate=wish, attempts=0, trials=0, saved=0)
    return _to(fresh, "offered", now)


def _withdrawn(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Withdrawn)
    sha = event.manifest_sha256
    candidate = record.candidate
    if record.serving is not None and record.serving.manifest_sha256 == sha:
        return _roll_back(record, sha, event.reason, now)
    if record.last_good is not None and record.last_good.manifest_sha256 == sha:
        record = msgspec.structs.replace(record, last_good=None)
    if candidate is not None and candidate.manifest_sha256 == sha and record.state in BEFORE_ACTIVE:
        return _reject(record, event.reason, now)
    return record


def _proved(record: UpdateRecord, **changes: object) -> UpdateRecord:
    """Return the record with `changes`, of which what serves has nothing left to prove."""
    return msgspec.structs.replace(record, **changes, committed=True, crashes=0, starts=0, reboots=0)


def _roll_back(record: UpdateRecord, sha: str, reason: str, now: float) -> UpdateRecord:
    """Serve last-good again, or nothing of our own (the factory bundle is below every ladder). A newer candidate on
    its way stays on its way."""
    back = record.last_good if record.last_good is None or record.last_good.manifest_sha256 != sha else None
    record = _proved(record, serving=back, last_good=back, rejected=_remember(record, sha))
    return record if record.state in BEFORE_ACTIVE else _to(record, "rolled_back", now, reason)


def _held(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Held)
    if record.state not in BEFORE_ACTIVE or record.state == "shadow":
        return record
    if record.state == "offered" and record.reason == event.reason:
        return record
    held = _to(record, "offered", now, event.reason)
    return msgspec.structs.replace(held, deadline=None)


def _began(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Began)
    _candidate(record)
    return _to(msgspec.structs.replace(record, facts=event.facts), "preflight", now)


def _fits(record: UpdateRecord, _event: Event, now: float) -> UpdateRecord:
    return _to(record, "downloading", now)


def _downloaded(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Downloaded)
    return _to(msgspec.structs.replace(record, saved=event.saved), "verified", now)


def _interrupted(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Interrupted)
    return _to(record, "offered", now, event.reason)


def _failed(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, UpdateFailed)
    by_device = event.reason in REFUSED_FOR_GOOD or event.reason.startswith("trial-")
    return _reject(record, event.reason, now, under=record.facts if by_device else "")


def _reject(record: UpdateRecord, reason: str, now: float, *, under: str = "") -> UpdateRecord:
    """Give the candidate up; `under` names the facts about the device that say so, empty where none do."""
    sha = _candidate(record).manifest_sha256
    if not record.committed:
        # What still serves was superseded in its soak and will never be proved now.
        record = _proved(record, serving=record.last_good)
    rejected = _remember(record, sha)
    refused_under = {old: facts for old, facts in record.refused_under.items() if old in rejected and old != sha}
    if under:
        refused_under[sha] = under
    record = msgspec.structs.replace(record, rejected=rejected, refused_under=refused_under)
    return _to(record, "rejected", now, reason)


def _trial_began(record: UpdateRecord, _event: Event, now: float) -> UpdateRecord:
    return _to(msgspec.structs.replace(record, trials=record.trials + 1), "trial", now)


def _trial_passed(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, TrialPassed)
    if not event.usable:
        raise TransitionError("a passed trial has at least one usable variant", subject=record.slot)
    kept = {sha: variants for sha, variants in record.usable.items() if sha in record.manifests}
    usable = {**kept, _candidate(record).manifest_sha256: event.usable}
    return _to(msgspec.structs.replace(record, usable=usable), "shadow", now)


def _activated(record: UpdateRecord, _event: Event, now: float) -> UpdateRecord:
    candidate = _candidate(record)
    if candidate.mode != "live":
        raise TransitionError("a shadow candidate is not served", subject=record.slot)
    last_good = record.serving if record.committed else record.last_good
    served = msgspec.structs.replace(
        record, serving=installed(candidate), last_good=last_good, committed=False, crashes=0, starts=0, reboots=0
    )
    return _soak(served, candidate, now)


def _soak(record: UpdateRecord, candidate: CandidateRelease, now: float) -> UpdateRecord:
    record = msgspec.structs.replace(_to(record, "active", now), candidate=candidate)
    return msgspec.structs.replace(record, deadline=_deadline(record, now))


def _deadline(record: UpdateRecord, now: float) -> float | None:
    """Return when the record's state ends if it begins now; None if it may last."""
    if record.state == "active":
        return now + _candidate(record).gates.soak_s + SOAK_GRACE_S
    limit = DEADLINES_S.get(record.state)
    return None if limit is None else now + limit + _for_turns(record, record.state)


def _for_turns(record: UpdateRecord, state: UpdateState) -> float:
    """Return how much longer a state may last where devices take turns, in seconds: until the turn has come round, at
    one window a day."""
    turn = None if record.candidate is None else record.candidate.turn
    if turn is None or state not in ("verified", "shadow"):
        return 0.0
    cycle_s = turn.of * turn.turn_s
    window = None if record.candidate is None else record.candidate.window
    open_s = DAY_S if window is None else max(60.0, open_seconds(window, DAY_S))
    return MAX_ATTEMPTS * cycle_s * DAY_S / open_s


def _crashed(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Crashed)
    if record.committed:
        return record
    record = msgspec.structs.replace(record, crashes=record.crashes + 1)
    return _over_the_gate(record, event.reason, now)


def _over_the_gate(record: UpdateRecord, reason: str, now: float) -> UpdateRecord:
    """Roll an uncommitted release back once its crashes exceed the gate."""
    allowed = 0 if record.candidate is None or record.state != "active" else record.candidate.gates.max_crashes
    if record.serving is None or record.crashes <= allowed:
        return record
    return _roll_back(record, record.serving.manifest_sha256, reason, now)


def _gate_failed(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, GateFailed)
    return _roll_back(record, _candidate(record).manifest_sha256, event.reason, now)


def _soaked(record: UpdateRecord, _event: Event, now: float) -> UpdateRecord:
    return _to(_proved(record, attempts=0, trials=0), "committed", now)


def _turn_over(record: UpdateRecord, _event: Event, now: float) -> UpdateRecord:
    """Leave the release for the next turn; nothing is held against it, unless it never gets done in one."""
    if record.attempts + 1 >= MAX_ATTEMPTS:
        sha = _candidate(record).manifest_sha256
        return (
            _roll_back(record, sha, "turn-over", now) if record.state == "active" else _reject(record, "turn-over", now)
        )
    if not record.committed:
        record = _proved(record, serving=record.last_good)
    return _to(msgspec.structs.replace(record, attempts=record.attempts + 1), "verified", now)


def _uncleanly(record: UpdateRecord, event: Restarted, now: float) -> UpdateRecord:
    """Roll an uncommitted release back once the agent, or the whole device, has ended without a stop too often in its
    soak. One such end proves nothing: somebody pulled the plug, or the kernel chose this process to end."""
    if event.power_cut:
        record = msgspec.structs.replace(record, reboots=record.reboots + 1)
        loops, reason = record.reboots > MAX_REBOOTS, "reboot-loop"
    else:
        record = msgspec.structs.replace(record, starts=record.starts + 1)
        loops, reason = record.starts > MAX_UNCLEAN_STARTS, "crash-loop"
    if not loops or record.serving is None:
        return record
    return _roll_back(record, record.serving.manifest_sha256, reason, now)


def _restarted(record: UpdateRecord, event: Event, now: float) -> UpdateRecord:
    assert isinstance(event, Restarted)
    if now < record.since:
        # The clock went back, as on a box without a clock battery.
        record = msgspec.structs.replace(record, since=now, deadline=record.deadline and _deadline(record, now))
    elif record.deadline is not None and now >= record.deadline:
        # It passed while the box was off: nobody could do anything about it then.
        record = msgspec.structs.replace(record, deadline=_deadline(record, now))
    if not record.committed and not event.clean:
        record = _uncleanly(record, event, now)
    if record.state in ("preflight", "downloading"):
        return _to(record, "offered", now, "restarted")
    if record.state == "trial":
        return _reject(record, "trial-crash", now) if record.trials >= MAX_TRIALS else _to(record, "verified", now)
    return record


def _shifted(record: UpdateRecord, event: Event, _now: float) -> UpdateRecord:
    assert isinstance(event, Shifted)
    since = record.since + event.stepped_s if record.since else record.since
    deadline = None if record.deadline is None else record.deadline + event.stepped_s + event.lost_s
    return msgspec.structs.replace(record, since=since, deadline=deadline)


def _expired(record: UpdateRecord, _event: Event, now: float) -> UpdateRecord:
    if record.deadline is None or now < record.deadline:
        return record
    if record.state == "active":
        return _roll_back(record, _candidate(record).manifest_sha256, "too-few-requests", now)
    if record.state in FETCHING and record.attempts + 1 < MAX_ATTEMPTS:
        record = msgspec.structs.replace(record, attempts=record.attempts + 1)
        return _to(record, "offered", now, "deadline")
    return _reject(record, "deadline", now)


Rule = Callable[[UpdateRecord, Event, float], UpdateRecord]

ALWAYS: dict[type, Rule] = {
    Wished: _wished,
    Withdrawn: _withdrawn,
    Held: _held,
    Restarted: _restarted,
    Shifted: _shifted,
}
"""What may happen in any state: a newer signed wish supersedes everything, power may fail, and clocks are set."""

TABLE: dict[tuple[UpdateState, type], Rule] = {
    ("offered", Began): _began,
    ("offered", UpdateFailed): _failed,
    ("offered", Interrupted): _interrupted,
    ("offered", Expired): _expired,
    ("preflight", Fits): _fits,
    ("preflight", UpdateFailed): _failed,
    ("preflight", Interrupted): _interrupted,
    ("preflight", Expired): _expired,
    ("downloading", Downloaded): _downloaded,
    ("downloading", UpdateFailed): _failed,
    ("downloading", Interrupted): _interrupted,
    ("downloading", Expired): _expired,
    ("verified", TrialBegan): _trial_began,
    ("verified", UpdateFailed): _failed,
    ("verified", Expired): _expired,
    ("trial", TrialPassed): _trial_passed,
    ("trial", UpdateFailed): _failed,
    ("trial", Expired): _expired,
    ("trial", TurnOver): _turn_over,
    ("shadow", ShadowPassed): _activated,
    ("shadow", UpdateFailed): _failed,
    ("shadow", Expired): _expired,
    ("shadow", TurnOver): _turn_over,
    ("active", Crashed): _crashed,
    ("active", GateFailed): _gate_failed,
    ("active", Soaked): _soaked,
    ("active", Expired): _expired,
    ("active", TurnOver): _turn_over,
}
"""Every other transition there is. An uncommitted release that still serves while a newer wish is on its way can crash
in any of the states before `active`; those rows follow."""

TABLE.update({(state, Crashed): _crashed for state in BEFORE_ACTIVE})
