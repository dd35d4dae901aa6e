"""Declared steps on a request's way: over HTTP's codec, in files of images, in batches, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.makers import bundles
from support.makers.pipelines import COLORS, make_colors

from edge_agent.capture.record import arrays, captured_request, decode_captured, encode_captured
from edge_agent.errors import TensorError
from edge_agent.http.oip_codec import encode_answer, model_metadata, parse_request
from edge_agent.inference.runtime import Runtime
from edge_agent.offline.score import score_file
from edge_contracts.manifest import LastResort


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says the color of an image of any size."""
    folder = tmp_path_factory.mktemp("processing") / "colors"
    make_colors(folder)
    return folder


def plain(color: str, height: int = 20, width: int = 30) -> Any:
    """Return an image of one color, uint8 [height, width, 3]."""
    image = np.full((height, width, 3), 5, np.uint8)
    image[..., COLORS.index(color)] = 250
    return image


def asked(runtime: Runtime, body: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the binary part of the answer to a request in JSON."""
    request = parse_request(json.dumps(body).encode(), None, runtime.manifest)
    data, length = encode_answer(runtime.infer(request.tensors), request, runtime.manifest)
    end = len(data) if length is None else length
    return json.loads(data[:end]), data[end:]


def request_of(image: Any, **more: Any) -> dict[str, Any]:
    """Return a request for one image."""
    shape = [1, *image.shape]
    return {"inputs": [{"name": "x", "datatype": "UINT8", "shape": shape, "data": image.ravel().tolist()}], **more}


def test_metadata_says_what_may_be_sent_and_what_comes_back(colors: Path) -> None:
    with Runtime.open(colors) as runtime:
        found = model_metadata(runtime.manifest)
    assert found["inputs"] == [{"name": "x", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    kinds = {output["name"]: (output["datatype"], output["shape"]) for output in found["outputs"]}
    assert kinds["p"] == ("FP32", [-1, 3])
    assert kinds["best_classes"] == ("INT64", [-1, 1])
    assert kinds["color"] == ("BYTES", [-1, 1])


def test_an_answer_holds_probabilities_and_names(colors: Path) -> None:
    with Runtime.open(colors) as runtime:
        answer, _ = asked(runtime, request_of(plain("green")))
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["color"] == {"name": "color", "datatype": "BYTES", "shape": [1, 1], "data": ["green"]}
    assert outputs["best_scores"]["data"][0] == pytest.approx(max(outputs["p"]["data"]))
    assert sum(outputs["p"]["data"]) == pytest.approx(1.0)


def test_names_come_in_the_protocols_binary_form_too(colors: Path) -> None:
    wanted = [{"name": "color", "parameters": {"binary_data": True}}]
    with Runtime.open(colors) as runtime:
        answer, blob = asked(runtime, request_of(plain("blue"), outputs=wanted))
    assert blob == b"\x04\x00\x00\x00blue"
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 8}


def test_what_the_model_is_fed_may_be_sent_as_it_is(colors: Path) -> None:
    fed = np.zeros((1, 8, 8, 3), np.float32)
    fed[..., 2] = 3.0
    with Runtime.open(colors) as runtime:
        assert runtime.infer({"x": fed}).outputs["y"].argmax() == 2
        with pytest.raises(TensorError, match="shape"):
            runtime.infer({"x": np.zeros((1, 9, 8, 3), np.float32)})


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 8, 8, 4), (1, 0, 8, 3), (1, 1, 20_000, 3)])
def test_a_sample_that_the_steps_cannot_take_is_refused_by_name(colors: Path, shape: tuple[int, ...]) -> None:
    with Runtime.open(colors) as runtime, pytest.raises(TensorError) as caught:
        runtime.infer({"x": np.zeros(shape, np.uint8)})
    assert caught.value.subject == "x"


def test_images_of_a_folder_keep_their_size_where_steps_take_any(colors: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for color, size in (("red", (40, 10)), ("blue", (9, 200))):
        Image.fromarray(plain(color, *size)).save(images / f"{color}.png")
    with Runtime.open(colors) as runtime:
        score_file(runtime, images, tmp_path / "out.jsonl", progress=lambda _: None)
        directly = runtime.infer({"x": plain("blue", 9, 200)[None]})
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["class"] for line in lines] == ["blue", "red"]
    assert np.allclose(lines[0]["outputs"]["y"], directly.outputs["y"][0])


def test_a_last_resort_is_finished_like_any_answer(tmp_path: Path) -> None:
    make_colors(tmp_path / "broken")
    manifest = Runtime.open(tmp_path / "broken").manifest
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    (tmp_path / "broken" / "m.onnx").write_bytes(bundles.crash_model())
    bundles.seal(tmp_path / "broken", fields | {"last_resort": LastResort(kind="constant", values=(0.0, 5.0, 0.0))})
    with Runtime.open(tmp_path / "broken") as runtime:
        answer = runtime.infer({"x": plain("red")[None]})
    assert answer.served_by == "last-resort/constant"
    assert answer.outputs["color"].tolist() == [["green"]]


def test_an_answer_with_names_can_be_captured_and_compared(colors: Path) -> None:
    tensors = {"x": plain("red")[None]}
    with Runtime.open(colors) as runtime:
        answer = runtime.infer(tensors)
    kept = arrays(decode_captured(encode_captured(captured_request(tensors, answer, 1.0))).outputs)
    assert kept.keys() == answer.outputs.keys() - {"color"}
    assert np.array_equal(kept["y"], answer.outputs["y"])
