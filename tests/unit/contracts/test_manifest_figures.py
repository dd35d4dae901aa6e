"""A manifest's schema by what it holds, its defaults, and its bounds at the edge."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace
from support.makers.contract_examples import MANIFEST

from edge_contracts import limits
from edge_contracts.answering import Ctc, Nms, Over, Softmax
from edge_contracts.errors import ContractError
from edge_contracts.guards import FeatureGuard, InputGuard, OutputGuard
from edge_contracts.manifest import (
    Budgets,
    Input,
    LastResort,
    Manifest,
    Output,
    Requirements,
    SampleMapping,
    ScoreMap,
    Variant,
    check_last_resort,
    check_manifest,
    manifest_bytes,
    schema_for,
)
from edge_contracts.processing import Normalize

PLAIN = Input(name="x", dtype="float32", shape=(-1, 4), sample=SampleMapping(dtype="float32"))
STEPPED = replace(PLAIN, sample=SampleMapping(dtype="float32", steps=(Normalize(mean=(0.0,), std=(1.0,)),)))
GUARDED = replace(PLAIN, guard=InputGuard(axis=1, features=(FeatureGuard(index=1, minimum=0.0, action="reject"),)))
CONSTANT = Input(name="rate", dtype="int64", shape=(), sample=SampleMapping(dtype="int64"), constant=(1,))
STATE = Input(name="h", dtype="float32", shape=(1, 4), sample=SampleMapping(dtype="float32"), feedback="y")
SCORES = Output(name="y", dtype="float32", shape=(-1, 3), kind="probabilities")
MAPPED = replace(MANIFEST.variants[0], score_maps=(ScoreMap(of="y", own=(0.0, 1.0), original=(0.0, 1.0)),))
BARE = replace(MANIFEST.variants[0], score_maps=(), floors=(), conformal=(), reference=None)
SOFTMAX, OVER = Softmax(of="y", name="p"), Over(of="y", name="yes", threshold=0.5)


@pytest.mark.parametrize(
    ("inputs", "answer", "variants", "schema"),
    [
        ((PLAIN,), (), (BARE,), 1),
        ((PLAIN,), (SOFTMAX,), (BARE,), 2),
        ((STEPPED,), (), (BARE,), 2),
        ((PLAIN, STEPPED), (), (BARE,), 2),
        ((STEPPED,), (SOFTMAX,), (BARE,), 2),
        ((GUARDED,), (), (BARE,), 3),
        ((PLAIN, GUARDED), (SOFTMAX,), (BARE,), 3),
        ((PLAIN, CONSTANT), (), (BARE,), 4),
        ((PLAIN, STATE), (), (BARE,), 4),
        ((PLAIN,), (OVER,), (BARE,), 4),
        ((PLAIN,), (SOFTMAX, OVER), (BARE,), 4),
        ((PLAIN,), (Ctc(of="y", name="text", charset="ab"),), (BARE,), 4),
        ((PLAIN,), (SOFTMAX,), (BARE, MAPPED), 4),
        ((PLAIN, CONSTANT), (), (MAPPED,), 4),
    ],
)
def test_the_schema_is_the_oldest_whose_readers_leave_nothing_out(
    inputs: tuple[Input, ...], answer: tuple[Any, ...], variants: tuple[Variant, ...], schema: int
) -> None:
    assert schema_for(inputs, answer, variants) == schema


@pytest.mark.parametrize(
    ("resort", "shapes", "says"),
    [
        (LastResort(), [(-1, 3)], ""),
        (LastResort(kind="last_value"), [(-1, 3)], ""),
        (LastResort(kind="constant", values=(0.0,) * 3), [(-1, 3)], ""),
        (LastResort(kind="constant", values=(0.0,) * 7), [(-1, 3), (-1, 2, 2)], ""),
        (LastResort(kind="constant", values=(0.0,) * 2), [(-1, 2, -1)], ""),
        (LastResort(kind="constant", values=(0.0,) * 2), [(-1, 3)], "2 values, 3 are the answer to one sample"),
        (LastResort(kind="constant"), [(-1, 3)], "0 values, 3 are the answer"),
        (LastResort(values=(1.0,)), [(-1, 3)], "abstain takes none"),
        (LastResort(kind="last_value", values=(1.0,)), [(-1, 3)], "last_value takes none"),
    ],
)
def test_a_last_resort_has_the_numbers_of_one_sample_s_answer(
    resort: LastResort, shapes: list[tuple[int, ...]], says: str
) -> None:
    if not says:
        check_last_resort(resort, shapes, "task.last_resort")
        return
    with pytest.raises(ContractError, match=says) as refused:
        check_last_resort(resort, shapes, "task.last_resort")
    assert refused.value.subject == "task.last_resort.values"


def test_what_a_signed_manifest_leaves_out_means() -> None:
    assert LastResort() == LastResort(kind="abstain", values=(), fresh_s=60.0)
    assert Requirements() == Requirements(engines=(), architectures=(), operators=(), memory_mb=0.0)
    assert Budgets() == Budgets(latency_ms=None, memory_mb=None, load_s=None)
    left_out = Variant(id="a", file="a.onnx", format="onnx", size=1)
    assert (left_out.tolerance, left_out.min_score, left_out.latency_ms) == (1e-3, None, None)
    few = Manifest(
        name="m", version="1.0.0", created=MANIFEST.created, inputs=(PLAIN,), outputs=(SCORES,),
        variants=(BARE,), lineage=MANIFEST.lineage, files=MANIFEST.files,
    )  # fmt: skip
    assert (few.schema, few.chunk_size) == (1, limits.CHUNK_BYTES)
    assert (few.golden, few.probe, few.metric, few.reference, few.answer) == (None, None, None, None, ())


def _sized(total: int) -> Manifest:
    """Return the example with as many bytes in its first file that all have `total`."""
    first, *others = MANIFEST.files
    size = total - sum(entry.size for entry in others)
    chunk = limits.MAX_CHUNK_BYTES
    grown = replace(first, size=size, chunks=("0" * 64,) * -(-size // chunk))
    return replace(MANIFEST, chunk_size=chunk, files=(grown, *(_rechunked(entry, chunk) for entry in others)))


def _rechunked(entry: Any, chunk: int) -> Any:
    return replace(entry, chunks=("0" * 64,) * -(-entry.size // chunk))


def test_a_bundle_may_have_as_many_bytes_as_allowed_and_not_one_more() -> None:
    check_manifest(_sized(limits.MAX_BUNDLE_BYTES))
    with pytest.raises(ContractError, match="over") as refused:
        check_manifest(_sized(limits.MAX_BUNDLE_BYTES + 1))
    assert refused.value.subject == "manifest.files"


def _detecting(input_name: str | None) -> Manifest:
    """Return the example as a detector whose suppression places boxes in `input_name`."""
    boxes = Output(name="boxes", dtype="float32", shape=(-1, 10, 4))
    scores = Output(name="scores", dtype="float32", shape=(-1, 10, 2), kind="probabilities")
    step = Nms(boxes="boxes", scores="scores", name="found", input=input_name)
    return replace(
        MANIFEST, schema=2, inputs=(PLAIN,), outputs=(boxes, scores), answer=(step,), variants=(BARE,), reference=None
    )


@pytest.mark.parametrize(("input_name", "sound"), [(None, True), ("x", True), ("y", False), ("scores", False)])
def test_boxes_lie_in_an_input_that_is_there(input_name: str | None, sound: bool) -> None:
    if sound:
        check_manifest(_detecting(input_name))
        return
    with pytest.raises(ContractError) as refused:
        check_manifest(_detecting(input_name))
    assert refused.value.subject == "manifest.answer[0].input"


@pytest.mark.parametrize("points", [(0.0, math.inf), (math.nan, 1.0), (0.0, 1.0, 1.0), (1.0, 0.0), (0.0, math.nan)])
def test_points_of_a_map_are_numbers_and_rise(points: tuple[float, ...]) -> None:
    even = tuple(float(number) for number in range(len(points)))
    for own, original in ((points, even), (even, points)):
        mapped = replace(BARE, score_maps=(ScoreMap(of="y", own=own, original=original),))
        made = replace(MANIFEST, inputs=(PLAIN,), outputs=(SCORES,), answer=(OVER,), variants=(mapped,), reference=None)
        with pytest.raises(ContractError, match="rise"):
            check_manifest(made)


def test_an_output_guard_is_looked_at_in_each_output() -> None:
    second = replace(SCORES, name="z", guard=OutputGuard(minimum=1.0, maximum=0.0))
    made = replace(
        MANIFEST, schema=1, inputs=(PLAIN,), outputs=(SCORES, second), answer=(), variants=(BARE,), reference=None
    )
    with pytest.raises(ContractError) as refused:
        check_manifest(made)
    assert refused.value.subject is not None
    assert refused.value.subject.startswith("manifest.outputs[1].guard")


def test_bytes_of_what_a_device_would_refuse_are_not_made() -> None:
    with pytest.raises(ContractError, match="schema 4"):
        manifest_bytes(replace(MANIFEST, schema=1))
