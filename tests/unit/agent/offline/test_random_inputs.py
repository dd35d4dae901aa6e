"""Made-up inputs: sizes that a model leaves open are asked for and never taken as one."""

import numpy as np
import pytest

from edge_agent.offline.random_inputs import made_up, parse_shapes, sizes_of
from edge_agent.ports import TensorInfo
from edge_contracts.errors import OperatorError

IMAGES = TensorInfo(name="images", dtype="float32", shape=(-1, 3, -1, -1))
MASK = TensorInfo(name="mask", dtype="int64", shape=(-1, -1))
SCALAR = TensorInfo(name="sr", dtype="int64", shape=())


def test_open_sizes_are_asked_for_by_name_all_at_once() -> None:
    with pytest.raises(OperatorError, match="images") as caught:
        sizes_of([IMAGES, MASK, SCALAR], {})
    assert caught.value.hint is not None
    assert "--shape images=1,3,N,N --shape mask=1,N" in caught.value.hint
    with pytest.raises(OperatorError) as one:
        sizes_of([IMAGES, MASK], {"images": (1, 3, 8, 8)})
    assert "images" not in str(one.value.hint)


def test_a_batch_and_a_scalar_need_no_sizes() -> None:
    fixed = TensorInfo(name="x", dtype="float32", shape=(-1, 4))
    assert sizes_of([fixed, SCALAR], {}) == {"x": (1, 4), "sr": ()}
    assert sizes_of([fixed], {"x": (5, 4)}) == {"x": (5, 4)}


@pytest.mark.parametrize("given", [{"images": (1, 1, 8, 8)}, {"images": (3, 8, 8)}, {"x": (1, 3, 8, 8)}])
def test_sizes_that_the_model_does_not_have_are_refused(given: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(OperatorError, match="--shape"):
        sizes_of([IMAGES], given)


def test_names_may_hold_any_character() -> None:
    words = ["serving_default_x:0=1,2", "a=b=3", "state="]
    assert parse_shapes(words) == {"serving_default_x:0": (1, 2), "a=b": (3,), "state": ()}


@pytest.mark.parametrize("word", ["x", "x=1,a", "=1,2", "x=0,3", "x=-1,3", "x=1,,3"])
def test_words_that_are_no_sizes_are_refused(word: str) -> None:
    with pytest.raises(OperatorError, match="NAME=SIZES"):
        parse_shapes([word])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bool", "int8", "uint8", "int32", "int64"])
def test_values_are_of_the_inputs_own_dtype_and_vary(dtype: str) -> None:
    made = made_up(TensorInfo(name="x", dtype=dtype, shape=(-1, 64)), (4, 64), np.random.default_rng(0))
    assert (made.dtype.name, made.shape) == (dtype, (4, 64))
    assert len(np.unique(made)) > 1
