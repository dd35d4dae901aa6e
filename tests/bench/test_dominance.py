"""One file dominates another when it is nowhere worse and somewhere better; noise is neither."""

import dataclasses

import numpy as np
import pytest

from dominance import Contender, Jury, Kind, judged, ratio, statement, table

Y = np.arange(400) % 4
RIGHT = np.eye(4, dtype=np.float32)[Y]


def wrong(count: int) -> np.ndarray:
    """Return answers of which the first `count` are wrong."""
    answers = RIGHT.copy()
    answers[:count] = np.roll(answers[:count], 1, axis=1)
    return answers


def contender(name: str, kind: Kind, *, errors: int = 0, size: int = 100, ms: float = 1.0) -> Contender:
    rounds = tuple(ms * drift for drift in (1.0, 3.0, 1.1))  # the machine's mood, the same for all
    return Contender(name=name, kind=kind, answers=wrong(errors), size=size, rounds=rounds)


JURY = Jury(metric="top1", y=Y)
FLOAT = contender("float", "float", size=400)
PEER = contender("peer", "peer", errors=20, size=100, ms=1.0)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"errors": 20, "size": 100, "ms": 1.0}, False),  # the same
        ({"errors": 20, "size": 99, "ms": 1.0}, True),
        ({"errors": 20, "size": 100, "ms": 0.9}, True),
        ({"errors": 20, "size": 100, "ms": 0.99}, False),  # within noise
        ({"errors": 0, "size": 100, "ms": 1.0}, True),
        ({"errors": 19, "size": 100, "ms": 1.0}, False),  # one sample of 400 is noise
        ({"errors": 21, "size": 90, "ms": 1.0}, True),
        ({"errors": 60, "size": 10, "ms": 0.1}, False),
        ({"errors": 0, "size": 101, "ms": 0.1}, False),
        ({"errors": 0, "size": 10, "ms": 1.1}, False),
    ],
)
def test_dominating_is_nowhere_worse_and_somewhere_better(changed: dict[str, float], expected: bool) -> None:
    assert JURY.dominates(contender("ours", "ours", **changed), PEER) is expected  # type: ignore[arg-type]


def test_latencies_are_compared_within_rounds() -> None:
    slow_machine = dataclasses.replace(PEER, rounds=(2.0, 60.0, 2.2))
    assert ratio(slow_machine, dataclasses.replace(PEER, rounds=(1.0, 30.0, 1.1))) == pytest.approx(2.0)


def test_the_table_says_who_dominates_whom() -> None:
    rung = contender("int8", "ours", size=50, ms=0.5)
    files = judged([FLOAT, rung, PEER], JURY)
    assert [one["dominated_by"] for one in files] == [[], [], ["int8"]]
    assert files[1]["share"] == 0.125
    task = {"task": "t", "files": files, "failed": {"nncf": "no wheel"}}
    assert "nncf | failed: no wheel" in "\n".join(table([task]))
    assert statement(task) == (
        "- t: rungs dominated by a peer: none; peers' files dominated by a rung: 1 of 1; "
        "rungs that dominate every peer's file: int8"
    )
