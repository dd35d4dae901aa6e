"""The commands `serve` and `score`: a bundle on this machine, without a fleet."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.makers import bundles
from support.makers.image_bundles import make_image_bundle
from support.parts.serve_and_score import run_score

from edge_agent.cli.serve import serve
from edge_agent.offline import images
from edge_contracts.errors import BundleError, OperatorError


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "192.0.2.1:0", ":x"])
def test_an_address_that_cannot_be_is_named(tmp_path, address):
    bundles.make_bundle(tmp_path / "b")
    with pytest.raises(OperatorError, match="--http"):
        CliRunner().invoke(serve, [str(tmp_path / "b"), "--http", address], catch_exceptions=False)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"manifest\.json"):
        CliRunner().invoke(serve, [str(tmp_path)], catch_exceptions=False)


def test_jsonl_and_csv_give_the_same_classes(tmp_path):
    bundles.make_bundle(tmp_path / "b", labels=("left", "middle", "right"))
    x, y = bundles.samples(20)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"x": row.tolist()}) + "\n" for row in x))
    (tmp_path / "in.csv").write_text("a,b,c,d\n" + "".join(",".join(map(repr, row.tolist())) + "\n" for row in x))
    for name in ("in.jsonl", "in.csv"):
        done = run_score(tmp_path / "b", tmp_path / name, tmp_path / f"{name}.out", "--json")
        assert json.loads(done.stdout) == {"skipped": 0, "answered": 20, "failed": 0}
        lines = [json.loads(line) for line in (tmp_path / f"{name}.out").read_text().splitlines()]
        assert [line["index"] for line in lines] == list(range(20))
        assert [("left", "middle", "right").index(line["class"]) for line in lines] == y.tolist()


def test_a_torn_output_is_continued_where_it_was_whole(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    x, _ = bundles.samples(10)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row.tolist()) + "\n" for row in x))
    run_score(tmp_path / "b", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    whole = (tmp_path / "out.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:7])
    done = run_score(tmp_path / "b", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--json")
    assert json.loads(done.stdout) == {"skipped": 4, "answered": 6, "failed": 0}
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_a_sample_that_does_not_fit_is_a_line_with_its_error_and_the_rest_goes_on(tmp_path):
    bundles.make_bundle(tmp_path / "b")
    (tmp_path / "in.jsonl").write_text('[1,2,3]\n{broken\n{"z":[1]}\n["a"]\n[1,2,3,4]\n')
    with pytest.raises(OperatorError, match="4 samples did not match"):
        run_score(tmp_path / "b", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["error" in line for line in lines] == [True, True, True, True, False]
    with pytest.raises(OperatorError, match="score"):
        run_score(tmp_path / "b", tmp_path / "gone.jsonl", tmp_path / "out2.jsonl")


@pytest.mark.parametrize("shape", [(-1, 8, 6, 3), (-1, 3, 8, 6)])
def test_a_folder_of_images_is_mapped_as_the_manifest_says(tmp_path, shape):
    make_image_bundle(tmp_path / "b", shape)
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (40, 30), (255, 0, 51)).save(photos / "a.png")
    Image.new("L", (6, 8), 102).save(photos / "b.JPG", "JPEG", quality=100)
    Image.new("RGBA", (6, 8), (0, 0, 255, 9)).save(photos / "c.png")
    (photos / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    (photos / "notes.txt").write_text("no image")
    (photos / "e.png").mkdir()
    with pytest.raises(OperatorError, match="1 samples did not match"):
        run_score(tmp_path / "b", photos, tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["a.png", "b.JPG", "c.png", "d.png"]
    means = [line["outputs"]["y"] for line in lines[:3]]
    assert np.allclose(means, [[1, 0, 0.2], [0.4, 0.4, 0.4], [0, 0, 1]], atol=0.01)
    assert [line.get("class") for line in lines] == ["red", lines[1]["class"], "blue", None]
    assert "cannot be read" in lines[3]["error"]


def test_an_image_larger_than_is_decoded_is_an_error_line(tmp_path, monkeypatch):
    make_image_bundle(tmp_path / "b", (-1, 8, 6, 3))
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "photos" / "a.png")
    with pytest.raises(OperatorError):
        run_score(tmp_path / "b", tmp_path / "photos", tmp_path / "out.jsonl")
    assert "10 x 10 pixels" in (tmp_path / "out.jsonl").read_text()


def test_answers_of_other_images_are_not_gone_on_with(tmp_path):
    make_image_bundle(tmp_path / "b", (-1, 8, 6, 3))
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("b.png", "c.png"):
        Image.new("RGB", (6, 8)).save(photos / name)
    run_score(tmp_path / "b", photos, tmp_path / "out.jsonl")
    Image.new("RGB", (6, 8)).save(photos / "d.png")
    done = run_score(tmp_path / "b", photos, tmp_path / "out.jsonl", "--json")
    assert json.loads(done.stdout) == {"skipped": 2, "answered": 1, "failed": 0}
    Image.new("RGB", (6, 8)).save(photos / "a.png")
    with pytest.raises(OperatorError, match="answers to other images"):
        run_score(tmp_path / "b", photos, tmp_path / "out.jsonl")


@pytest.mark.parametrize(("shape", "sample"), [((-1, 4), {}), ((-1, 8, 6, 3), {"dtype": "float32", "scale": 1.0})])
def test_a_model_that_takes_no_image_says_so(tmp_path, shape, sample):
    if len(shape) == 2:
        bundles.make_bundle(tmp_path / "b")
    else:
        make_image_bundle(tmp_path / "b", shape, **sample)
    (tmp_path / "photos").mkdir()
    with pytest.raises(OperatorError, match=r"uint8|not the shape of an image"):
        run_score(tmp_path / "b", tmp_path / "photos", tmp_path / "out.jsonl")
