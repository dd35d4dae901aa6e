"""The steps before a model do what other implementations of them do, and their costs are bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image
from scipy import fft as scipy_fft
from scipy import signal as scipy_signal

from edge_agent.inference.samples import to_model
from edge_agent.processing.preprocess import Placement, apply_steps, placement
from edge_agent.processing.resampling import Region, resample
from edge_contracts.errors import ContractError
from edge_contracts.manifest import Input, SampleMapping
from edge_contracts.processing import (
    Channels,
    Crop,
    Frames,
    Mel,
    Normalize,
    Reshape,
    Resize,
    Step,
    Transpose,
    shape_after,
)

Array = np.ndarray[Any, Any]


def picture(height: int, width: int, seed: int = 0) -> Array:
    """Return an image of smooth shapes with some noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5.0 + y / 9.0), np.cos(x / 3.0), np.sin(y / 4.0)]
    return np.clip(128 + 90 * np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def one(sample: Array, *steps: Step) -> Array:
    """Return one sample after steps."""
    return apply_steps(sample[None], steps)[0]


@pytest.mark.parametrize("size", [(24, 24), (7, 50), (97, 131), (200, 40), (1, 1)])
def test_resize_with_antialias_is_that_of_pillow(size: tuple[int, int]) -> None:
    image = picture(61, 83)
    ours = one(image, Resize(height=size[0], width=size[1]))
    assert ours.dtype == np.float32
    exact = Image.fromarray(image[..., 0].astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR)
    assert np.allclose(ours[..., 0], np.asarray(exact), atol=1e-3)
    in_bytes = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(np.rint(ours) - in_bytes).max() <= 1  # Pillow rounds between the axes


@pytest.mark.parametrize("size", [(20, 30), (90, 111), (45, 60)])
def test_resize_without_antialias_is_that_of_onnx(size: tuple[int, int]) -> None:
    image = picture(45, 60)[..., 0].astype(np.float32)
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel"
    )
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["h", "w"]),
            helper.make_tensor_value_info("sizes", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    theirs = ReferenceEvaluator(model).run(None, {"x": image, "sizes": np.array(size, np.int64)})[0]
    ours = one(image, Resize(height=size[0], width=size[1], antialias=False))
    assert np.allclose(ours, theirs, atol=2e-3)


def test_a_part_of_an_image_is_resampled_like_pillow_does() -> None:
    image = picture(50, 70)
    ours = resample(image, Region(top=3.5, left=10.25, bottom=40.0, right=60.75), (16, 20))
    theirs = Image.fromarray(image).resize((20, 16), Image.Resampling.BILINEAR, box=(10.25, 3.5, 60.75, 40.0))
    assert np.abs(np.rint(ours) - np.asarray(theirs)).max() <= 1


def test_letterbox_keeps_proportions_and_fills_the_borders() -> None:
    wide = np.full((10, 40, 3), 200, np.uint8)
    boxed = one(wide, Resize(height=20, width=20, fit="letterbox", fill=114.0))
    assert np.all(boxed[:7] == 114.0)
    assert np.all(boxed[7:12] == 200.0)
    assert np.all(boxed[12:] == 114.0)


def test_cover_leaves_out_what_lies_outside_evenly() -> None:
    striped = np.zeros((10, 30, 1), np.uint8)
    striped[:, 10:20] = 100
    covered = one(striped, Resize(height=5, width=5, fit="cover", antialias=False))
    assert np.allclose(covered, 100.0)


def test_crops_lie_where_they_say_or_in_the_middle() -> None:
    image = np.arange(60).reshape(6, 10)
    assert np.array_equal(one(image, Crop(height=2, width=4)), image[2:4, 3:7])
    assert np.array_equal(one(image, Crop(height=2, width=4, top=0, left=6)), image[0:2, 6:10])


def test_channels_normalize_transpose_and_reshape_by_hand() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert one(image, Channels(to="reversed"))[0, 0].tolist() == [2, 1, 0]
    assert np.allclose(one(image, Channels(to="grey"))[0, 0], 0 * 0.299 + 1 * 0.587 + 2 * 0.114)
    normal = one(image, Normalize(mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 0.5)))
    assert np.allclose(normal[1, 1], [(9 - 1) / 2, (10 - 2) / 4, (11 - 3) / 0.5])
    assert one(image, Transpose(axes=(2, 0, 1))).shape == (3, 2, 2)
    assert one(image, Transpose(axes=(2, 0, 1))).dtype == np.uint8
    assert one(image, Reshape(shape=(12, 1)))[:, 0].tolist() == list(range(12))


def test_frames_are_the_windows_of_a_series() -> None:
    series = np.arange(20).reshape(10, 2)
    framed = one(series, Frames(length=4, hop=3))
    assert framed.shape == (3, 4, 2)
    assert np.array_equal(framed[1], series[3:7])


MFCC = Mel(rate_hz=16000, length=480, hop=320, fft=512, bands=40, low_hz=20, high_hz=4000, coefficients=10)


def naive_mel(sound: Array, step: Mel) -> Array:
    """The definition, number by number."""
    scale = lambda hertz: 1127.0 * np.log(1.0 + hertz / 700.0)  # noqa: E731
    low, high = scale(step.low_hz), scale(step.high_hz)
    edges = [low + (high - low) * i / (step.bands + 1) for i in range(step.bands + 2)]
    rows = []
    for start in range(0, len(sound) - step.length + 1, step.hop):
        window = scipy_signal.get_window("hann", step.length)
        spectrum = np.abs(scipy_fft.rfft(sound[start : start + step.length] * window, step.fft)) ** step.power
        row = []
        for band in range(step.bands):
            left, center, right = edges[band : band + 3]
            total = 0.0
            for point in range(1, step.fft // 2 + 1):
                at = scale(point * step.rate_hz / step.fft)
                total += max(0.0, min((at - left) / (center - left), (right - at) / (right - center))) * spectrum[point]
            row.append(np.log(total + step.floor))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("power", [1, 2])
def test_mel_and_mfcc_are_their_definition(power: Any) -> None:
    time = np.arange(4000) / 16000
    sound = (3000 * np.sin(2 * np.pi * 440 * time) + np.random.default_rng(3).normal(0, 200, 4000)).astype(np.int16)
    step = Mel(rate_hz=16000, length=480, hop=320, fft=512, bands=20, power=power)
    expected = naive_mel(sound.astype(np.float64), step)
    ours = one(sound, step)
    assert ours.shape == expected.shape == (12, 20)
    assert ours.dtype == np.float32
    assert np.allclose(ours, expected, atol=1e-4)
    cepstral = Mel(rate_hz=16000, length=480, hop=320, fft=512, bands=20, power=power, coefficients=13)
    orthonormal = scipy_fft.dct(expected, type=2, axis=1, norm="ortho")[:, :13]
    orthonormal[:, 0] *= np.sqrt(2.0)  # the conventional factor is the same for all
    assert np.allclose(one(sound, cepstral), orthonormal, atol=1e-3)


def test_one_second_of_sound_becomes_what_the_keyword_model_takes() -> None:
    steps = (Normalize(mean=(0.0,), std=(32768.0,)), MFCC, Reshape(shape=(49, 10, 1)))
    assert shape_after((16000,), steps) == (49, 10, 1)
    assert one(np.zeros(16000, np.int16), *steps).shape == (49, 10, 1)


def test_steps_come_before_offset_and_scale_and_the_cast_saturates() -> None:
    steps = (Resize(height=2, width=2), Transpose(axes=(2, 0, 1)))
    sample = SampleMapping(dtype="uint8", offset=10.0, scale=2.0, shape=(-1, -1, -1, 3), steps=steps)
    tensor = Input(name="x", dtype="int8", shape=(-1, 3, 2, 2), sample=sample)
    fed = to_model(np.full((2, 9, 5, 3), 60, np.uint8), tensor)
    assert fed.shape == (2, 3, 2, 2)
    assert fed.dtype == np.int8
    assert np.all(fed == 100)
    assert np.all(to_model(np.full((1, 4, 4, 3), 250, np.uint8), tensor) == 127)
    as_it_is = np.zeros((1, 3, 2, 2), np.int8)
    assert to_model(as_it_is, tensor) is as_it_is


PLACES: list[tuple[tuple[Step, ...], Placement]] = [
    ((), Placement()),
    ((Resize(height=10, width=10),), Placement()),
    ((Crop(height=50, width=100, top=25, left=20),), Placement(top=0.25, left=0.1, height=0.5, width=0.5)),
    ((Resize(height=100, width=100, fit="letterbox"),), Placement(top=-0.5, left=0.0, height=2.0, width=1.0)),
    ((Resize(height=50, width=50, fit="cover"),), Placement(top=0.0, left=0.25, height=1.0, width=0.5)),
    (
        (Resize(height=50, width=100), Crop(height=50, width=50, left=50), Transpose(axes=(2, 0, 1))),
        Placement(top=0.0, left=0.5, height=1.0, width=0.5),
    ),
]


@pytest.mark.parametrize(("steps", "expected"), PLACES)
def test_a_point_of_the_models_image_is_found_in_the_one_that_was_sent(
    steps: tuple[Step, ...], expected: Placement
) -> None:
    found = placement((100, 200, 3), steps)
    for name in ("top", "left", "height", "width"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name


def test_a_spot_stays_where_the_placement_says_it_is() -> None:
    image = np.zeros((90, 160, 1), np.uint8)
    image[60:64, 100:104] = 255
    steps = (Crop(height=80, width=120, top=5, left=30), Resize(height=64, width=64, fit="letterbox"))
    seen = one(image, *steps)[..., 0]
    y, x = (float(np.average(np.arange(64) + 0.5, weights=seen.sum(axis=axis))) / 64 for axis in (1, 0))
    place = placement(image.shape, steps)
    assert place.top + y * place.height == pytest.approx(62 / 90, abs=0.01)
    assert place.left + x * place.width == pytest.approx(102 / 160, abs=0.01)


@pytest.mark.parametrize(
    ("shape", "step"),
    [
        ((10, 10), Crop(height=11, width=2)),
        ((10, 10), Crop(height=2, width=2, top=9)),
        ((10,), Resize(height=2, width=2)),
        ((2, 2, 4), Channels(to="grey")),
        ((2, 2, 4), Normalize(mean=(1.0, 2.0), std=(1.0,))),
        ((2, 3), Transpose(axes=(0, 0))),
        ((2, 3), Reshape(shape=(7,))),
        ((-1, 3), Reshape(shape=(6,))),
        ((3,), Frames(length=4, hop=1)),
        ((-1,), Frames(length=4, hop=1)),
        ((2, 16000), MFCC),
        ((100,), MFCC),
        ((16000,), Mel(rate_hz=16000, length=600, hop=320, fft=512, bands=40)),
        ((16000,), Mel(rate_hz=16000, length=480, hop=320, fft=512, bands=40, high_hz=9000)),
        ((16000,), Mel(rate_hz=16000, length=480, hop=320, fft=512, bands=4, coefficients=5)),
    ],
)
def test_a_step_that_does_not_fit_is_named(shape: tuple[int, ...], step: Step) -> None:
    with pytest.raises(ContractError) as caught:
        shape_after(shape, [Transpose(axes=tuple(range(len(shape)))), step], "steps")
    assert caught.value.subject == "steps[1]"


@pytest.mark.parametrize(
    ("shape", "step"),
    [
        ((4, 4, 100_000), Resize(height=16384, width=16384)),
        ((16_000_000,), Frames(length=8000, hop=1)),
        ((32_000_000,), Mel(rate_hz=16000, length=2, hop=1, fft=65536, bands=1)),
    ],
)
def test_steps_that_would_take_more_memory_than_allowed_are_refused(shape: tuple[int, ...], step: Step) -> None:
    with pytest.raises(ContractError):
        shape_after(shape, [step])


def test_an_image_of_extreme_proportions_costs_no_more_than_its_size() -> None:
    thin = np.zeros((1, 16_384, 3), np.uint8)
    for fit in ("stretch", "letterbox", "cover"):
        assert one(thin, Resize(height=64, width=64, fit=fit)).shape == (64, 64, 3)  # type: ignore[arg-type]
    with pytest.raises(ContractError):
        one(np.zeros((1, 16_385, 3), np.uint8), Resize(height=64, width=64))
