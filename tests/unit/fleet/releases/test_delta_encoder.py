"""Deltas: any file comes back exactly, and what moved or changed a little costs little."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.makers import tflite_files
from support.makers.deltas import applied, weights_model

from edge_contracts.delta import Codec, Copy, Difference
from edge_fleet.releases.deltas.encoder import encode_delta
from edge_fleet.releases.deltas.matching import plan
from edge_fleet.releases.deltas.model_tensors import find_tensors

RNG = np.random.default_rng(5)
DTYPES = ("int8", "uint8", "int16", "float16", "int32", "float32", "int64", "float64", "bool")


def trip(base: bytes, target: bytes, codec: Codec = "zstd") -> int:
    """Return the size of a delta that was found to make `target` of `base`."""
    delta = encode_delta(base, target, codec)
    with tempfile.TemporaryDirectory() as folder:
        assert applied(Path(folder), base, delta, len(target), codec) == target
    return len(delta)


def weights(shape: tuple[int, ...] = (256, 64)) -> np.ndarray[Any, Any]:
    return RNG.normal(0, 0.05, shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(base=st.binary(max_size=3000), target=st.binary(max_size=3000), codec=st.sampled_from(["zstd", "zlib"]))
def test_any_file_comes_back_from_any_other(base: bytes, target: bytes, codec: Codec) -> None:
    trip(base, target, codec)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_spliced_files_come_back(data: st.DataObject) -> None:
    base = RNG.bytes(data.draw(st.integers(0, 5000)))
    target = b""
    for _ in range(data.draw(st.integers(0, 6))):
        start, length = data.draw(st.integers(0, 5000)), data.draw(st.integers(0, 2000))
        target += data.draw(st.binary(max_size=20)) + base[start : start + length]
    trip(base, target)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_models_whose_tensors_move_change_come_and_go_come_back(data: st.DataObject) -> None:
    def tensor(count: int) -> np.ndarray[Any, Any]:
        return RNG.integers(-99, 99, count).astype(data.draw(st.sampled_from(DTYPES)))

    names = [f"t{index}" for index in range(data.draw(st.integers(1, 6)))]
    old = {name: tensor(data.draw(st.integers(0, 400))) for name in names}
    new: dict[str, np.ndarray[Any, Any]] = {}
    for name in data.draw(st.permutations(names)):
        kept = old[name]
        match data.draw(st.sampled_from(["keep", "nudge", "replace", "drop", "rename"])):
            case "keep":
                new[name] = kept
            case "nudge":
                new[name] = (kept + RNG.integers(-1, 2, kept.shape)).astype(kept.dtype)
            case "replace":
                new[name] = tensor(data.draw(st.integers(0, 400)))
            case "rename":
                new[name + "_renamed"] = kept
    trip(weights_model(*old.values(), names=list(old)), weights_model(*new.values(), names=list(new)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_from_its_extremes(dtype: str) -> None:
    kind = np.dtype(dtype)
    old = np.frombuffer(RNG.bytes(4096 * kind.itemsize), np.uint8).copy()
    new = old.copy()
    new[:64], new[64:128], old[128:192] = 0xFF, 0x80, 0x7F
    assert trip(
        weights_model(old.view(np.uint8).view(f"V{kind.itemsize}").view(kind) if dtype != "bool" else old & 1),
        weights_model(new.view(f"V{kind.itemsize}").view(kind) if dtype != "bool" else new & 1),
    )


def test_unchanged_model_costs_next_to_nothing() -> None:
    model = weights_model(weights(), weights())
    assert trip(model, model) < 150
    assert plan(np.frombuffer(model, np.uint8), np.frombuffer(model, np.uint8)) == [Copy(length=len(model), offset=0)]


def test_last_layer_costs_itself() -> None:
    body, head = [weights() for _ in range(8)], weights((64, 10))
    assert trip(weights_model(*body, head), weights_model(*body, head * 1.01)) < head.nbytes


def test_tensors_that_only_moved_or_were_renamed_are_copied() -> None:
    tensors = [weights() for _ in range(6)]
    base = weights_model(*tensors)
    target = weights_model(*tensors[::-1], names=[f"renamed_{index}" for index in range(6)])
    assert trip(base, target) < 1000


def test_int8_weights_that_move_by_one_cost_their_entropy() -> None:
    old = np.clip(RNG.normal(0, 25, 200_000), -127, 126).astype(np.int8)
    new = old + (RNG.random(old.size) < 0.05).astype(np.int8)
    assert trip(weights_model(old), weights_model(new)) < 0.05 * old.size


def test_float_weights_nudged_cost_less_than_their_exponents_and_signs_do() -> None:
    old = weights()
    new = (old * (1 + 1e-5 * RNG.standard_normal(old.shape))).astype(np.float32)
    base, target = weights_model(old), weights_model(new)
    assert trip(base, target) < 0.35 * len(target)
    assert [type(operation) for operation in plan(np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8))] == [
        Copy,
        Difference,
        Copy,
    ]


def test_a_tensor_with_nothing_in_common_is_not_subtracted() -> None:
    base, target = weights_model(weights()), weights_model(RNG.normal(0, 1, (256, 64)).astype(np.float32))
    assert not any(
        isinstance(operation, Difference)
        for operation in plan(np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8))
    )


def test_bytes_put_in_front_of_a_model_shift_nothing() -> None:
    tensors = [weights() for _ in range(4)]
    names = ["a_much_longer_name_than_before" * 20, "b", "c", "d"]
    assert trip(weights_model(*tensors, names=["a", "b", "c", "d"]), weights_model(*tensors, names=names)) < 1000


def test_the_same_two_files_give_the_same_delta() -> None:
    base, target = weights_model(weights()), weights_model(weights())
    assert encode_delta(base, target) == encode_delta(base, target)


def test_tensors_of_a_tflite_file_are_found_and_subtracted() -> None:
    old, new = weights((4, 3)), weights((4, 3))
    model = tflite_files.linear_tflite(old)
    found = [model[tensor.offset : tensor.offset + tensor.length] for tensor in find_tensors(memoryview(model))]
    assert found == [old.T.tobytes()]
    trip(model, tflite_files.linear_tflite(new))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400), start=st.integers(0, 200), tflite=st.booleans())
def test_damaged_models_have_tensors_inside_or_none(data: bytes, start: int, tflite: bool) -> None:
    model = bytearray(b"\x20\0\0\0TFL3" + RNG.bytes(60) if tflite else weights_model(weights((4, 4))))
    model[start : start + len(data)] = data
    end = 0
    for tensor in find_tensors(memoryview(bytes(model))):
        assert end <= tensor.offset < tensor.offset + tensor.length <= len(model)
        assert tensor.length % tensor.lane == 0
        end = tensor.offset + tensor.length
