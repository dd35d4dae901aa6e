"""What is taken from a device at the edge of what a database can hold, and from which topics."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from support.makers.contract_examples import EVENT, PRESENCE, REPORTED, TOMBSTONE, WINDOW

from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.topics import device_topic
from edge_fleet.controller.ingest import parse_arrival

LARGEST = 9_007_199_254_740_991
"""2 ** 53 - 1, the largest whole number that every JSON reader keeps."""


def arrive(message: Any, topic: Any = "tele") -> Any:
    return parse_arrival(device_topic("default", message.device, topic), encode(message))


@pytest.mark.parametrize(
    ("topic", "message"),
    [("presence", PRESENCE), ("reported", REPORTED), ("tele", WINDOW), ("tele", EVENT), ("tele", TOMBSTONE)],
)
def test_each_topic_has_its_message(topic: str, message: Any) -> None:
    assert arrive(message, topic) == message


@pytest.mark.parametrize("topic", ["req", "res/abc"])
def test_what_a_device_asks_of_a_depot_is_no_report(topic: str) -> None:
    address = f"{device_topic('default', 'dev-1', 'tele').removesuffix('tele')}{topic}"
    with pytest.raises(ContractError) as refused:
        parse_arrival(address, encode(EVENT))
    assert refused.value.subject == address


def test_the_largest_number_is_taken_and_the_next_is_not() -> None:
    assert arrive(replace(EVENT, sequence=LARGEST)).sequence == LARGEST
    for field in ("sequence", "first", "count"):
        assert getattr(arrive(replace(TOMBSTONE, **{field: LARGEST})), field) == LARGEST
        with pytest.raises(ContractError, match=str(LARGEST)) as refused:
            arrive(replace(TOMBSTONE, **{field: LARGEST + 1}))
        assert refused.value.subject == field


@pytest.mark.parametrize("boot_id", ["b", "b" * 128])
def test_a_boot_has_a_name_that_is_a_key(boot_id: str) -> None:
    assert arrive(replace(EVENT, boot_id=boot_id)).boot_id == boot_id


@pytest.mark.parametrize("boot_id", ["", "b" * 129, "a\0b", "a\nb"])
def test_a_boot_whose_name_is_no_key_is_refused(boot_id: str) -> None:
    with pytest.raises(ContractError) as refused:
        arrive(replace(EVENT, boot_id=boot_id))
    assert refused.value.subject == "boot_id"
