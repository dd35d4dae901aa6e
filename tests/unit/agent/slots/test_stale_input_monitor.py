"""A slot that nobody asks any more: told of, whichever way requests came, and over with the next one."""

from __future__ import annotations

import pytest

from edge_agent.config.agent_toml import parse_config
from edge_agent.errors import ConfigError
from edge_agent.supervisor.slots.stale_input_monitor import StaleInputMonitor


class Watched:
    """A watch over a clock that is turned by hand."""

    def __init__(self, stale_after_s: float | None) -> None:
        self.now = 100.0
        self.totals: dict[str, int] = {}
        self.news: list[tuple[str, str]] = []
        told = self.news.append
        self.watch = StaleInputMonitor(
            "main", stale_after_s, lambda: self.now, lambda news: told((news.event, news.text))
        )

    def after(self, seconds: float, **totals: int) -> tuple[str, ...]:
        """Look every half second, as the agent does; what came is seen at the last look."""
        end = self.now + seconds
        while self.now + 0.5 < end:
            self.now += 0.5
            self.watch.look(self.totals)
        self.now, self.totals = end, totals or self.totals
        self.watch.look(self.totals)
        return self.watch.faults

    def pause(self, seconds: float, **totals: int) -> tuple[str, ...]:
        """Do not run for so long, and look."""
        self.now, self.totals = self.now + seconds, totals or self.totals
        self.watch.look(self.totals)
        return self.watch.faults


def test_a_silence_is_told_once_and_ends_with_the_next_request() -> None:
    slot = Watched(10.0)
    assert slot.after(9.0) == ()
    assert slot.after(2.0) == ("no-input",)
    assert slot.after(5.0) == ("no-input",)
    assert slot.watch.gauges == {"request_age_s": 16.0}
    assert slot.after(1.0, requests=1) == ()
    assert slot.news == [("input-stale", "no request for 10.5 s"), ("input-fresh", "requests resumed")]
    assert slot.watch.gauges == {"request_age_s": 0.0}


def test_pause_of_the_whole_device_is_nobodys_silence() -> None:
    slot = Watched(10.0)
    assert slot.after(5.0, requests=1) == ()
    assert slot.pause(3600.0) == ()
    assert slot.after(7.5) == ()
    assert slot.after(1.0) == ("no-input",)
    slot = Watched(10.0)
    assert slot.after(9.5, requests=1) == ()
    assert slot.pause(60.0, requests=2) == ()
    assert slot.after(9.5) == ()
    assert slot.news == []


@pytest.mark.parametrize("counter", ["requests", "rejected", "shed", "lost"])
def test_whatever_becomes_of_a_request_it_came(counter: str) -> None:
    slot = Watched(10.0)
    for number in range(1, 5):
        assert slot.after(9.0, **{counter: number}) == ()
    assert slot.after(11.0, **{counter: 4}) == ("no-input",)


def test_unless_it_is_asked_for_no_silence_is_a_fault() -> None:
    slot = Watched(None)
    assert slot.after(1000.0) == ()
    assert slot.watch.gauges == {}
    slot.watch.configure(10.0)
    assert slot.after(1.0) == ("no-input",)
    slot.watch.configure(None)
    assert slot.after(1.0) == ()


def test_less_than_workers_report_is_refused() -> None:
    slot = {"name": "main", "factory": "f", "stale_after_s": 1.0}
    with pytest.raises(ConfigError, match=r"^config\.slots\[(0|\.\.\.)\]\.stale_after_s"):
        parse_config({"device": {"id": "d"}, "slots": [slot]})
