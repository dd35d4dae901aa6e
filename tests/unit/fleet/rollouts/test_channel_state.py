"""The rollout's decisions: every verb in every phase, and what each leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from edge_contracts.channel import Channel, ChannelRelease, Gates, MaintenanceWindow
from edge_fleet.errors import RolloutError
from edge_fleet.rollouts import channel_state
from edge_fleet.rollouts.channel_state import (
    ALLOWED,
    Plan,
    WaveRules,
    abort,
    advance,
    check_proved,
    finish,
    pause,
    phase,
    resume,
    retry,
    start,
)

ONE = ChannelRelease(version="1.0.0", manifest_sha256="1" * 64)
TWO = ChannelRelease(version="2.0.0", manifest_sha256="2" * 64)
STABLE = Channel(channel="stable", model="har", serial=4, stable=ONE)


def begin(before: Channel | None, release: ChannelRelease = TWO, **values: Any) -> Channel:
    plan = Plan(**({"channel": "stable", "model": "har", "version": release.version} | values))
    return start(before, plan, release)


RUNNING = begin(STABLE, percentage=10.0)
PHASES = {"idle": STABLE, "running": RUNNING, "paused": pause(RUNNING)}
VERBS = {
    "start": begin,
    "pause": pause,
    "resume": resume,
    "advance": lambda channel: advance(channel, 50.0),
    "abort": abort,
    "finish": finish,
    "retry": lambda channel: retry(channel, ("dev-1",)),
}


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_works_exactly_in_the_phases_of_the_table(verb: Any, name: Any) -> None:
    channel = PHASES[name]
    assert phase(channel) == name
    if name in ALLOWED[verb]:
        assert VERBS[verb](channel).serial == channel.serial + 1
    else:
        with pytest.raises(RolloutError, match=f"cannot {verb} while {name}"):
            VERBS[verb](channel)


def test_the_first_rollout_of_a_channel_has_a_candidate_and_no_stable() -> None:
    first = begin(None, ONE)
    assert (first.serial, first.stable, first.candidate, first.rollout) == (1, None, ONE, "r1-1.0.0")


def test_finish_makes_the_candidate_stable_for_everyone() -> None:
    done = finish(RUNNING)
    assert (done.stable, done.candidate, done.rollout) == (TWO, None, None)
    assert (done.percentage, done.selectors, done.paused) == (100.0, (), False)


def test_abort_blocks_the_candidate_and_keeps_stable() -> None:
    done = abort(RUNNING)
    assert (done.stable, done.candidate, done.blocked) == (ONE, None, (TWO.manifest_sha256,))


def test_an_aborted_release_cannot_be_offered_again() -> None:
    with pytest.raises(RolloutError, match="aborted"):
        begin(abort(RUNNING))


def test_the_blocked_list_forgets_its_oldest_when_full() -> None:
    channel = Channel(channel="stable", model="har", serial=1, blocked=tuple(f"{n:064x}" for n in range(64)))
    done = abort(begin(channel))
    assert len(done.blocked) == channel_state.MAX_BLOCKED
    assert done.blocked[-1] == TWO.manifest_sha256


def test_what_is_stable_already_is_not_offered() -> None:
    with pytest.raises(RolloutError, match="already the stable release"):
        begin(STABLE, ONE)


def test_a_channel_never_changes_its_model() -> None:
    with pytest.raises(RolloutError, match="for 'har'"):
        begin(STABLE, model="other")


@pytest.mark.parametrize("percentage", [5.0, 10.0, None])
def test_a_wave_only_widens(percentage: float | None) -> None:
    with pytest.raises(RolloutError):
        advance(RUNNING, percentage)


def test_a_shadow_must_go_live_before_it_can_be_finished() -> None:
    shadow = begin(STABLE, mode="shadow")
    with pytest.raises(RolloutError, match="only run in shadow"):
        finish(shadow)
    assert finish(advance(shadow, mode="live")).stable == TWO
    with pytest.raises(RolloutError, match="can only be widened"):
        advance(RUNNING, mode="shadow")


def test_retry_names_who_is_to_try_again_and_holds_for_its_own_document_only() -> None:
    again = retry(RUNNING, ("dev-1",), ("crash-loop",))
    assert again.retry is not None
    assert (again.retry.serial, again.retry.devices, again.retry.reasons) == (again.serial, ("dev-1",), ("crash-loop",))
    assert replace(again, serial=RUNNING.serial, retry=None) == RUNNING
    later = pause(again)
    assert later.retry == again.retry
    assert later.serial != again.serial
    assert finish(again).retry is None
    assert begin(retry(STABLE, ("dev-1",))).retry is None


def test_retry_needs_something_to_try_and_somebody_to_do_so() -> None:
    with pytest.raises(RolloutError, match="which devices"):
        retry(RUNNING)
    with pytest.raises(RolloutError, match="nothing is offered"):
        retry(Channel(channel="stable", model="har", serial=1), ("dev-1",))


def test_pausing_changes_nothing_but_the_pause() -> None:
    assert resume(pause(RUNNING)) == channel_state.replace(RUNNING, serial=RUNNING.serial + 2)


def test_a_wave_that_stays_as_wide_may_change_its_rules_and_must_change_something() -> None:
    window = MaintenanceWindow(start="01:00", end="04:00")
    rules = WaveRules(gates=Gates(soak_s=60.0), window=window, strata=None)
    narrowed = advance(RUNNING, rules=rules)
    assert (narrowed.percentage, narrowed.gates.soak_s, narrowed.window) == (10.0, 60.0, window)
    with pytest.raises(RolloutError, match="nothing to advance"):
        advance(narrowed, rules=rules)
    assert advance(narrowed, 20.0, rules=rules).window == window


def test_only_what_is_stable_on_a_channel_is_promoted_from_it() -> None:
    check_proved(STABLE, "stable", ONE)
    with pytest.raises(RolloutError, match=r"2\.0\.0 is not the stable release here, 1\.0\.0 is"):
        check_proved(STABLE, "stable", TWO)
    for nothing in (None, begin(None, TWO)):
        with pytest.raises(RolloutError, match=r"2\.0\.0 is not the stable release here, nothing is"):
            check_proved(nothing, "dev", TWO)


def test_no_channel_is_called_like_the_documents_of_turns() -> None:
    with pytest.raises(RolloutError, match="no channel may be named like that"):
        begin(None, channel="turns.stable")
