"""The log: a fault that repeats does not fill it, and journald knows how bad each line is."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.device_event import DeviceEvent
from edge_agent.host.logs import BURST, KINDS, WINDOW_S, LineFormatter, RepeatLimit, goes_to_journald
from edge_agent.supervisor.event_log import EventLog


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(journald=True))
    handler.addFilter(RepeatLimit(clock))
    logger = logging.Logger("edge_agent.test", logging.DEBUG)
    logger.addHandler(handler)
    return logger, stream


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_repeated_line_is_left_out_and_the_next_one_says_how_many(
    log: tuple[logging.Logger, io.StringIO], clock: Clock
) -> None:
    logger, stream = log
    for number in range(BURST + 25):
        logger.warning("disk error %d", number)
    assert lines(stream) == [f"<4>disk error {number}" for number in range(BURST)]
    logger.warning("another line")
    clock.now += WINDOW_S
    logger.warning("disk error %d", 99)
    assert lines(stream)[BURST:] == ["<4>another line", "<4>disk error 99 (25 similar lines suppressed)"]
    logger.warning("disk error %d", 100)
    assert lines(stream)[-1] == "<4>disk error 100"


def test_slow_repetition_is_never_left_out(log: tuple[logging.Logger, io.StringIO], clock: Clock) -> None:
    logger, stream = log
    for _ in range(50):
        logger.info("once in a while")
        clock.now += WINDOW_S / (BURST - 1)
    assert len(lines(stream)) == 50


def test_kinds_of_lines_do_not_grow_without_end(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, _ = log
    for number in range(KINDS * 3):
        logger.info(f"kind {number}")
    (limit,) = (one for handler in logger.handlers for one in handler.filters)
    assert isinstance(limit, RepeatLimit)
    assert len(limit._seen) <= KINDS


def test_news_of_one_event_do_not_crowd_out_another(
    log: tuple[logging.Logger, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, stream = log
    monkeypatch.setattr("edge_agent.supervisor.event_log._log", logger)
    spool: list[Callable[[int], object]] = []
    journal = EventLog("dev-1", "b1", Silent(), deque(), spool.append)  # type: ignore[arg-type]
    for _ in range(100):
        journal.tell(DeviceEvent(event="worker-died", severity="error", text="100% bad %s"))
    journal.tell(DeviceEvent(event="update-committed"))
    assert lines(stream)[0] == "<3>- worker-died 100% bad %s"
    assert len(lines(stream)) == BURST + 1
    assert len(spool) == 101


class Silent:
    def append(self, *_: object, **__: object) -> None: ...


def test_every_line_of_a_record_has_its_priority() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "two\nlines", (), None)
    assert LineFormatter(journald=True).format(record) == "<3>two\n<3>lines"
    assert LineFormatter(journald=False).format(record).endswith("ERROR two\nlines")


def test_only_the_stream_that_systemd_connected_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert goes_to_journald(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not goes_to_journald(stream, {"JOURNAL_STREAM": "1:1"})
        assert not goes_to_journald(stream, {})
    assert not goes_to_journald(io.StringIO(), {"JOURNAL_STREAM": "1:1"})
