"""Who collects: a retained word proves nothing, a live one does."""

from __future__ import annotations

from edge_agent.telemetry.collectors import ASK_S, MAX_COLLECTORS, Collectors


def connected(now: float = 0.0, *, blind: bool = False) -> Collectors:
    collectors = Collectors()
    collectors.connected(now, blind=blind)
    return collectors


def test_a_retained_announcement_is_not_believed() -> None:
    collectors = connected()
    assert not collectors.announced("c1", here=True, retained=True)
    assert not collectors.present


def test_an_announcement_that_came_before_the_last_subscription_was_confirmed_is_kept() -> None:
    collectors = Collectors()
    collectors.announced("c1", here=True, retained=True)
    collectors.connected(0.0)
    assert collectors.ask(ASK_S[0])


def test_a_live_announcement_is_believed_and_new_once() -> None:
    collectors = connected()
    assert collectors.announced("c1", here=True, retained=False)
    assert collectors.present
    assert not collectors.announced("c1", here=True, retained=False)


def test_the_answer_to_our_presence_proves_a_collector() -> None:
    collectors = connected()
    collectors.announced("c1", here=True, retained=True)
    assert collectors.proven("c1")
    assert collectors.present


def test_a_collector_that_goes_is_gone_whoever_vouched_for_it() -> None:
    collectors = connected()
    collectors.proven("c1")
    collectors.announced("c1", here=False, retained=False)
    assert not collectors.present


def test_another_connection_starts_anew() -> None:
    collectors = connected()
    collectors.proven("c1")
    collectors.forget()
    assert not collectors.present


def test_the_silent_are_asked_ever_more_seldom() -> None:
    collectors = connected()
    collectors.announced("c1", here=True, retained=True)
    asked = [now for now in range(3000) if collectors.ask(float(now))]
    assert asked[:5] == [30, 90, 210, 450, 930]
    assert asked[-1] - asked[-2] == ASK_S[1]


def test_nobody_is_asked_where_nobody_is_announced() -> None:
    collectors = connected()
    assert not any(collectors.ask(float(now)) for now in range(1000))


def test_without_announcements_on_this_broker_it_asks_all_the_same() -> None:
    collectors = connected(blind=True)
    assert any(collectors.ask(float(now)) for now in range(40))


def test_an_announced_collector_that_does_not_answer_is_named() -> None:
    collectors = connected()
    collectors.announced("c1", here=True, retained=True)
    assert collectors.unanswered(ASK_S[0]) == ()
    assert collectors.unanswered(ASK_S[0] + 6) == ("c1",)
    collectors.proven("c2")
    assert collectors.unanswered(ASK_S[0] + 6) == ()


def test_a_flood_of_names_is_bounded() -> None:
    collectors = connected()
    for number in range(2 * MAX_COLLECTORS):
        collectors.announced(f"c{number}", here=True, retained=False)
    assert len(collectors._announced) == len(collectors._proven) == MAX_COLLECTORS
