"""Conditions on facts of a device: which are taken, and which devices match."""

from __future__ import annotations

from typing import Any

import pytest
from support.makers import contract_examples

from edge_contracts.channel import parse_channel
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.selector import Selector, accepts, check_selectors, described


@pytest.mark.parametrize(
    ("fact", "bounds", "value", "expected"),
    [
        ("memory_mb", {"at_least": "900"}, "926", True),
        ("memory_mb", {"at_least": "900"}, "900", True),
        ("memory_mb", {"at_least": "900"}, "899", False),
        ("memory_mb", {"at_least": "900"}, "1900", True),  # as numbers, not as text
        ("memory_mb", {"below": "900"}, "900", False),
        ("memory_mb", {"below": "900"}, "89", True),
        ("memory_mb", {"at_least": "400", "below": "900"}, "512", True),
        ("memory_mb", {"at_least": "400", "below": "900"}, "1000", False),
        ("memory_mb", {"at_least": "900"}, None, False),
        ("memory_mb", {"at_least": "900"}, "much", False),
        ("cpus", {"at_least": "1.5"}, "2", True),
        ("cpus", {"at_least": "1.5"}, "1", False),
        ("agent_version", {"at_least": "0.2", "below": "0.10"}, "0.9.3", True),
        ("agent_version", {"at_least": "0.2", "below": "0.10"}, "0.10.0", False),
        ("agent_version", {"at_least": "0.2"}, "0.2.0", True),
        ("engine.onnxruntime", {"at_least": "1.17"}, "1.31.1", True),
        ("engine.onnxruntime", {"at_least": "1.17"}, "1.9.0", False),
        ("engine.litert", {"at_least": "2.0"}, None, False),
        ("engine.litert", {"at_least": "2.3"}, "2.3.0rc1", True),
        ("engine.litert", {"at_least": "2.0"}, "unknown", False),
        ("engine.litert", {}, "2.0", False),
        ("memory_mb", {}, "2000", False),
    ],
)
def test_what_is_compared(fact: str, bounds: dict[str, str], value: str | None, expected: bool) -> None:
    assert accepts(Selector(fact=fact, **bounds), value) is expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"fact": "memory_mb"},
        {"fact": "memory_mb", "values": ("900",)},
        {"fact": "memory_mb", "at_least": "much"},
        {"fact": "memory_mb", "at_least": "-1"},
        {"fact": "memory_mb", "at_least": "1e9"},
        {"fact": "memory_mb", "at_least": "900", "values": ("900",)},
        {"fact": "agent_version", "below": "new"},
        {"fact": "engine.onnxruntime", "values": ("1.17",)},
        {"fact": "board", "at_least": "pi-4"},
        {"fact": "board"},
        {"fact": "tag.site", "below": "9"},
        {"fact": "battery_percent", "at_least": "50"},  # flaps: a device's own governor holds back
        {"fact": "available_memory_mb", "at_least": "50"},
        {"fact": "memory_mb\n", "at_least": "1"},
    ],
)
def test_conditions_that_cannot_be_decided_are_refused_with_their_fact(wrong: dict[str, Any]) -> None:
    channel = contract_examples.CHANNEL
    data = encode(channel).replace(b'"selectors":[', b'"selectors":[' + encode(Selector(**wrong)) + b",", 1)
    with pytest.raises(ContractError, match="selectors"):
        parse_channel(data)


def test_good_conditions_are_taken() -> None:
    check_selectors(
        [
            Selector(fact="board", values=("pi-4",)),
            Selector(fact="memory_mb", at_least="900"),
            Selector(fact="agent_version", at_least="0.2.0", below="1"),
            Selector(fact="engine.onnxruntime", below="1.31"),
        ],
        what="selectors",
    )


def test_a_condition_reads_as_a_sentence() -> None:
    assert described(Selector(fact="memory_mb", at_least="400", below="900")) == "at least 400 and below 900"
    assert described(Selector(fact="board", values=("pi-4", "pi-5"))) == "pi-4, pi-5"
