"""One file dominates another when it is nowhere worse and somewhere better; noise is neither."""

import dataclasses

import numpy as np
import pytest

from benchmarks.toolchain.dominance import Contender, Jury, Kind, Verdict, faster, judged, ratio, verdict
from benchmarks.toolchain.peer_table import section

Y = np.arange(400) % 4
RIGHT = np.eye(4, dtype=np.float32)[Y]


def wrong(count: int) -> np.ndarray:
    """Return answers of which the first `count` are wrong."""
    answers = RIGHT.copy()
    answers[:count] = np.roll(answers[:count], 1, axis=1)
    return answers


def contender(name: str, kind: Kind, *, errors: int = 0, size: int = 100, ms: float = 1.0) -> Contender:
    rounds = tuple(ms * drift for drift in (1.0, 3.0, 1.1))  # the machine's mood, the same for all
    return Contender(name=name, kind=kind, answers=wrong(errors), size=size, rounds=(rounds, rounds))


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
    slow_machine = dataclasses.replace(PEER, rounds=((2.0, 60.0, 2.2),))
    assert ratio(slow_machine, dataclasses.replace(PEER, rounds=((1.0, 30.0, 1.1),))) == pytest.approx(2.0)


def test_a_process_that_is_slow_once_makes_no_slow_file() -> None:
    once = dataclasses.replace(PEER, rounds=((2.0, 6.0, 2.2), PEER.rounds[1]))
    always = dataclasses.replace(PEER, rounds=((2.0, 6.0, 2.2), (1.1, 3.3, 1.21)))
    assert not faster(PEER, once)
    assert faster(PEER, always)


def test_a_verdict_names_who_dominates_whom() -> None:
    rung = contender("int8", "ours", size=50, ms=0.5)
    files = judged([FLOAT, rung, PEER], JURY)
    assert [one["dominated_by"] for one in files] == [[], [], ["int8"]]
    assert verdict(files) == Verdict(peers=1, beaten_by=(), undominated=(), champions=("int8",))


def test_a_front_is_beaten_only_where_no_rung_stands_for_the_peers_file() -> None:
    slow = contender("slow", "ours", size=100, ms=3.0)
    peer = contender("peer", "peer", size=100, ms=1.0)
    beaten = judged([FLOAT, slow, peer], JURY)
    assert beaten[1]["dominated_by"] == ["peer"]
    assert verdict(beaten).beaten_by == ("peer",)
    equal = contender("equal", "ours", size=100, ms=1.0)
    held = verdict(judged([FLOAT, slow, equal, peer], JURY))
    assert held == Verdict(peers=1, beaten_by=(), undominated=("peer",), champions=())


def test_no_rung_is_a_champion_where_no_peer_made_a_file() -> None:
    assert verdict(judged([FLOAT, contender("int8", "ours")], JURY)) == Verdict(
        peers=0, beaten_by=(), undominated=(), champions=()
    )


def test_the_table_has_every_file_and_what_failed() -> None:
    again, tiny = contender("again", "float", size=400, ms=1.02), contender("tiny", "peer", size=9)
    files = judged([FLOAT, again, contender("int8", "ours", size=50, ms=0.5), PEER, tiny], JURY)
    task = {"task": "t", "samples": 400, "files": files, "failed": {"nncf": "no wheel"}}
    text = section({"tasks": [task], "megabytes": {"nncf": 1355}})
    assert "| peer | 5.0 / 0.25 / 1.00 |" in text
    assert "| tiny | **0.0 / 0.02 / 1.00** |" in text
    assert "| nncf | failed |" in text
    assert "- t, nncf: `no wheel`" in text
    assert "| t | 400 | 1.02 | 2 | 1 | none | none |" in text
    assert "| t | int8 | 0.00 |" in text
    assert "nncf 1,355 MB" in text
