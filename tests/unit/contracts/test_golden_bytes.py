"""The exact bytes of everything that is signed. A change here is a change of format that deployed devices will see:
raise the document's schema number, do not just replace the golden file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.makers import contract_examples

from edge_contracts.channel import Availability, parse_channel, parse_family
from edge_contracts.codec import encode
from edge_contracts.delta import parse_deltas
from edge_contracts.errors import ContractError
from edge_contracts.job import parse_job
from edge_contracts.manifest import Input, Manifest, manifest_bytes, parse_manifest
from edge_contracts.turns import parse_roster

GOLDEN = Path(__file__).parent / "golden"
SIGNED = {
    "manifest": (parse_manifest, "ecc72973e26b86c9d873ce04dab10ffc642e9b34842b9fe876c405358b95b119"),
    "channel": (parse_channel, "5bc4c721153ef563c3969acf6f41c28dbd3350f9d1c4e05eca4d5155e94e2f98"),
    "roster": (parse_roster, "3fb64324bcef91e51a2ebc2a1665599f253d158a5248d1dc650495159a8dd650"),
    "family": (parse_family, "cba323eb3054f20a034dac88b70d5daf5caa40d140e8ee02f4234b18762c9b18"),
    "deltas": (parse_deltas, "2176af1ec1e8eb561a6e8f9b5fa2c72d9359d986b8f5f9a5c7a1ef03b00a987d"),
    "job": (parse_job, "0d2d5281b63a2bfaf9d41a7afdabdc3afc85a6d04f274e6ee40dc899190d95e6"),
}


@pytest.mark.parametrize("name", SIGNED)
def test_signed_document_is_byte_for_byte_the_golden_one(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes()
    assert encode(contract_examples.EXAMPLES[name]) == golden
    assert hashlib.sha256(golden).hexdigest() == SIGNED[name][1]


@pytest.mark.parametrize("name", SIGNED)
def test_golden_document_parses_to_the_example(name: str) -> None:
    parse = SIGNED[name][0]
    assert parse((GOLDEN / f"{name}.json").read_bytes()) == contract_examples.EXAMPLES[name]


def test_a_manifest_from_before_the_statistics_is_still_read() -> None:
    old = parse_manifest((GOLDEN / "manifest-before-statistics.json").read_bytes())
    assert old.reference is None
    assert all(variant.reference is None for variant in old.variants)
    assert old.variants[0].conformal[0].coverage is None


def before_state() -> Manifest:
    """The example without what schema 4 brought."""
    variants = tuple(replace(one, score_maps=(), floors=(), judged=()) for one in contract_examples.MANIFEST.variants)
    return replace(
        contract_examples.MANIFEST,
        schema=3,
        judged=(),
        inputs=contract_examples.MANIFEST.inputs[:1],
        outputs=contract_examples.MANIFEST.outputs[:1],
        answer=contract_examples.MANIFEST.answer[:2],
        variants=variants,
    )


def test_a_manifest_from_before_the_states_is_still_read() -> None:
    old = parse_manifest((GOLDEN / "manifest-before-state.json").read_bytes())
    assert old == before_state()
    assert old.inputs[0].sampled


def test_a_channel_from_before_the_retry_is_still_read() -> None:
    old = parse_channel((GOLDEN / "channel-before-retry.json").read_bytes())
    assert old == replace(contract_examples.CHANNEL, retry=None, retries=())


def test_a_channel_from_before_the_turns_is_still_read() -> None:
    assert parse_channel((GOLDEN / "channel-before-turns.json").read_bytes()) == contract_examples.CHANNEL


def test_a_channel_whose_devices_take_turns_is_refused_by_agents_that_know_none() -> None:
    turns = Availability(group="tag.site", at_most=2, turn_s=1800.0, begins="2026-12-01T00:00:00Z")
    channel = replace(contract_examples.CHANNEL, availability=turns)
    with pytest.raises(ContractError, match="schema 1"):
        parse_channel(encode(channel))
    assert parse_channel(encode(replace(channel, schema=2))).availability == turns


def test_a_turn_that_holds_no_soak_is_refused() -> None:
    turns = Availability(group="tag.site", at_most=2, turn_s=1000.0, begins="2026-12-01T00:00:00Z")
    with pytest.raises(ContractError, match="hold no soak of 900 s"):
        parse_channel(encode(replace(contract_examples.CHANNEL, schema=2, availability=turns)))


def without_features(tensor: Input) -> Input:
    return replace(tensor, guard=replace(tensor.guard, axis=-1, features=()))


def test_a_manifest_from_before_the_guards_of_features_is_still_read() -> None:
    old = parse_manifest((GOLDEN / "manifest-before-features.json").read_bytes())
    inputs = tuple(map(without_features, before_state().inputs))
    assert old == replace(before_state(), schema=2, inputs=inputs)


def test_a_manifest_from_before_the_processing_is_still_read() -> None:
    old = parse_manifest((GOLDEN / "manifest-before-processing.json").read_bytes())
    assert old == replace(
        before_state(),
        schema=1,
        answer=(),
        inputs=tuple(
            replace(tensor, sample=replace(tensor.sample, shape=(), steps=()))
            for tensor in map(without_features, before_state().inputs)
        ),
    )


def test_manifest_bytes_are_its_canonical_encoding() -> None:
    assert manifest_bytes(contract_examples.MANIFEST) == encode(contract_examples.MANIFEST)


def test_canonical_bytes_do_not_depend_on_the_order_of_keys() -> None:
    assert (
        encode({"b": 1, "a": {"d": 2, "c": 3}})
        == encode({"a": {"c": 3, "d": 2}, "b": 1})
        == b'{"a":{"c":3,"d":2},"b":1}'
    )


def test_a_job_from_before_the_comparisons_is_still_read() -> None:
    assert parse_job((GOLDEN / "job-before-comparisons.json").read_bytes()) == contract_examples.JOB
