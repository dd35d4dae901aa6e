"""Every contract survives being written and read, whatever its values are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.makers import contract_examples

from edge_contracts.codec import decode, encode, plain
from edge_contracts.schemas import CONTRACTS
from edge_contracts.transfer import Request, Response, pack, unpack_request, unpack_response

FEW = settings(max_examples=6)

VALUES = {name: contract_examples.any_value(kind) for name, kind in CONTRACTS.items()}


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Build what the strategies are made of before the clock of a test starts."""
    for values in VALUES.values():
        values.validate()


@pytest.mark.parametrize("name", CONTRACTS)
@FEW
@given(data=st.data())
def test_any_value_round_trips_through_canonical_json(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    text = encode(value)
    again = decode(text, CONTRACTS[name], limit=1 << 24, what=name)
    assert again == value
    assert encode(again) == text


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_has_a_filled_example(name: str) -> None:
    example = contract_examples.EXAMPLES[name]
    assert type(example) is CONTRACTS[name]
    assert decode(encode(example), CONTRACTS[name], limit=1 << 20, what=name) == example


STRICT = ("device-profile", "pipeline", "request", "response")
"""A person types a profile; a graph read in part would be another graph; envelopes are arrays."""


@pytest.mark.parametrize("name", [name for name in CONTRACTS if name not in STRICT])
def test_an_older_reader_ignores_a_newer_writers_fields(name: str) -> None:
    value: Any = plain(contract_examples.EXAMPLES[name])
    value["a_field_of_the_future"] = {"x": 1}
    again = decode(encode(value), CONTRACTS[name], limit=1 << 20, what=name)
    assert again == contract_examples.EXAMPLES[name]


@FEW
@given(request=contract_examples.any_value(Request), response=contract_examples.any_value(Response))
def test_envelopes_round_trip_through_messagepack(request: Request, response: Response) -> None:
    assert unpack_request(pack(request)) == request
    assert unpack_response(pack(response)) == response


def test_a_record_cannot_be_changed() -> None:
    for example in contract_examples.EXAMPLES.values():
        if isinstance(example, msgspec.Struct):
            with pytest.raises(AttributeError):
                setattr(example, example.__struct_fields__[0], None)
