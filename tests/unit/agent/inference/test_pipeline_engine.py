"""Several models as one: what a pipeline answers, what becomes of nodes that fail, and what is refused, by node."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from support.makers import bundles
from support.makers.pipelines import (
    CAMERA,
    COLORS,
    changed,
    composed,
    graph_of,
    make_chain,
    make_colors,
    make_detector,
    make_ensemble,
    sealed,
    squares,
    write_linear_samples,
)
from support.parts import pipeline_engine as parts
from support.parts.pipeline_engine import node

from edge_agent.answer import Answer
from edge_agent.bundle import Bundle
from edge_agent.errors import EngineError
from edge_agent.fallback_ladder import LadderRelease, build_ladder
from edge_agent.inference.pipeline_engine import PipelineEngine
from edge_agent.inference.runtime import Runtime
from edge_agent.inference.samples import write_arrays
from edge_agent.offline.compose_file import ModelSource, PipelineFile, WindowSource
from edge_agent.ports import EngineSettings
from edge_agent.processing.pipeline_ops import mean, votes
from edge_contracts.answering import AnswerSteps
from edge_contracts.codec import convert
from edge_contracts.errors import BundleError, ContractError, EdgewrightError
from edge_contracts.manifest import LastResort
from edge_contracts.pipeline import MeanNode, check_contents
from edge_contracts.processing import Steps
from edgewright.commands import edgewright

camera = parts.camera


def ask(bundle: Bundle, **tensors: Any) -> Answer:
    """Return one answer of a bundle."""
    with Runtime.open(bundle.folder) as runtime:
        return runtime.infer(tensors)


@pytest.mark.parametrize("size", [(64, 64), (120, 240), (52, 28)])
def test_what_is_found_is_classified_in_images_of_any_size(camera: Bundle, size: tuple[int, int]) -> None:
    image = squares(*size, (1, "green"), (6, "red"), (15, "blue"))
    answer = ask(camera, image=image[None])
    count = int(answer.outputs["count"][0])
    assert count == 3
    found = {}
    for box, likely in zip(answer.outputs["boxes"][0, :count], answer.outputs["colors"][0, :count], strict=True):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        found[int(y * 4) * 4 + int(x * 4)] = COLORS[int(likely.argmax())]
    assert found == {1: "green", 6: "red", 15: "blue"}
    assert not answer.outputs["colors"][0, count:].any()
    assert answer.outputs["boxes"].shape == (1, 4, 4)
    assert answer.served_by == "local:1.0.0/full"


def test_every_node_says_who_served_it_and_how_long_it_took(camera: Bundle) -> None:
    answer = ask(camera, image=squares(64, 64, (5, "red"))[None])
    assert [one.node for one in answer.nodes] == ["detect", "crop", "classify"]
    assert node(answer, "detect").served_by == "local:1.0.0/m"
    assert node(answer, "crop").served_by is None
    assert sum(one.timing_us for one in answer.nodes) <= answer.timing_us


def test_an_image_with_nothing_in_it_is_an_answer(camera: Bundle) -> None:
    answer = ask(camera, image=squares(64, 64)[None])
    assert answer.outputs["count"].tolist() == [0]
    assert answer.outputs["colors"].shape == (1, 4, 3)
    assert not answer.outputs["colors"].any()


def test_a_batch_is_answered_like_its_samples_one_by_one(camera: Bundle) -> None:
    images = np.stack([squares(64, 64, (3, "red")), squares(64, 64, (0, "blue"), (9, "green"))])
    with Runtime.open(camera.folder) as runtime:
        together = runtime.infer({"image": images})
        alone = [runtime.infer({"image": image[None]}) for image in images]
    for name, array in together.outputs.items():
        assert np.array_equal(array, np.concatenate([one.outputs[name] for one in alone])), name


def test_a_node_whose_model_fails_is_answered_by_its_own_next_variant(tmp_path: Path) -> None:
    models = [("nan", bundles.nan_model()), ("good", bundles.linear_model())]
    x = np.array([[1000.0, 0.0, 0.0, 0.0]], np.float32)
    answer = ask(make_chain(tmp_path, models=models), x=x)
    assert answer.served_by == "local:2.0.0/full"
    assert node(answer, "first").served_by == "local:1.0.0/good"
    assert any("NaN" in text for text in node(answer, "first").warnings)
    assert np.allclose(answer.outputs["y"], 2 * x @ bundles.WEIGHTS)


def test_what_fails_inside_a_node_is_told(tmp_path: Path) -> None:
    models = [("broken", bundles.crash_model()), ("good", bundles.linear_model())]
    chain = make_chain(tmp_path, models=models)
    told: list[tuple[str, str, str]] = []
    release = LadderRelease(
        role="active", folder=str(chain.folder), manifest_sha256=chain.manifest_sha256, manifest=chain.manifest
    )
    runtime = Runtime(
        build_ladder([release]), on_fault=lambda rung, reason, text: told.append((rung.served_by, reason, text))
    )
    runtime.warm()
    ((served_by, reason, text),) = told
    assert (served_by, reason) == ("active:2.0.0/full", "node")
    assert text.startswith("node first: local:1.0.0/broken: ")
    assert node(runtime.infer({"x": POISON}), "first").served_by == "local:1.0.0/good"
    assert len(told) == 1
    runtime.close()


def test_a_node_with_no_answer_is_named_and_nothing_is_made_up(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, models=[("nan", bundles.nan_model())])
    answer = ask(chain, x=np.array([[1000.0, 0.0, 0.0, 0.0]], np.float32))
    assert answer.abstained
    assert answer.outputs == {}
    assert any("node second: waits for node first: no variant answers" in text for text in answer.warnings)


def test_the_last_resort_of_a_node_is_no_answer_in_a_pipeline(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, models=[("nan", bundles.nan_model())], resort=LastResort(kind="last_value"))
    with Runtime.open(chain.folder) as runtime:
        assert not runtime.infer({"x": bundles.samples(1)[0]}).abstained
        answer = runtime.infer({"x": POISON})
    assert answer.abstained  # the first node has a last value, of another request


def test_the_last_resort_of_a_pipeline_is_what_its_file_says(tmp_path: Path) -> None:
    make_chain(tmp_path, models=[("nan", bundles.nan_model())])
    text = (tmp_path / "chain-2.0.0.toml").read_text() + '[last_resort]\nkind = "constant"\nvalues = '
    answer = ask(composed(tmp_path, text + "[0.0, 0.0, 7.0]", "resigned"), x=POISON)
    assert (answer.served_by, answer.outputs["y"].tolist()) == ("last-resort/constant", [[0.0, 0.0, 7.0]])
    with pytest.raises(ContractError, match=r"last_resort\.values: 1 values, 3 are the answer to one sample"):
        composed(tmp_path, text + "[7.0]", "wrong")


def test_members_whose_open_sizes_differ_have_no_mean() -> None:
    for join in (mean, votes):
        with pytest.raises(ValueError, match="different shapes"):
            join([np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)])


def test_an_answer_past_the_deadline_is_none(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, first="deadline_ms = 60000.0")
    late = [one | ({"deadline_ms": 1e-6} if one["name"] == "first" else {}) for one in graph_of(chain)["nodes"]]
    late_chain = changed(chain, nodes=late)
    session = PipelineEngine().load(late_chain.folder / "full.json", EngineSettings())
    with pytest.raises(EngineError, match="node first: took longer than 1e-06 ms"):
        session.run({"x": bundles.samples(1)[0]})
    answer = ask(late_chain, x=bundles.samples(1)[0])
    assert answer.served_by == "local:2.0.0/light"  # whose graph has a deadline of a minute


def test_the_mean_of_an_ensemble(tmp_path: Path) -> None:
    x = bundles.samples(3)[0]
    answer = ask(make_ensemble(tmp_path), x=x)
    assert np.allclose(answer.outputs["y"], x @ bundles.WEIGHTS * (0.5 + 1.0 + 2.0) / 3, rtol=1e-5)


def test_the_vote_of_an_ensemble(tmp_path: Path) -> None:
    x, y = bundles.samples(8)
    answer = ask(make_ensemble(tmp_path, "vote", bad=bundles.wrong_model()), x=x)
    expected = np.full((8, 3), 0.0, np.float32)
    for row, right in enumerate(y):
        expected[row, right] += 2 / 3
        expected[row, (x[row] @ np.roll(bundles.WEIGHTS, 1, axis=1)).argmax()] += 1 / 3
    assert np.allclose(answer.outputs["y"], expected)


POISON = np.array([[1000.0, 0.0, 0.0, 0.0]], np.float32)


def test_members_that_fail_are_left_out_of_an_ensemble_that_allows_it(tmp_path: Path) -> None:
    answer = ask(make_ensemble(tmp_path, least=2, bad=bundles.nan_model()), x=POISON)
    assert np.allclose(answer.outputs["y"], POISON @ bundles.WEIGHTS * 0.75)
    assert "no variant answers" in node(answer, "m2").failed
    assert node(answer, "m0").failed is None


def test_an_ensemble_that_asks_for_all_has_no_answer_without_one(tmp_path: Path) -> None:
    answer = ask(make_ensemble(tmp_path, bad=bundles.nan_model()), x=POISON)
    assert answer.abstained
    assert any("node all: 2 of at least 3 members" in text for text in answer.warnings)


def test_a_pipeline_may_have_steps_of_its_own(parts: Path) -> None:
    steps = '[[answer]]\nstep = "top_k"\nof = "colors"\nname = "best"\nk = 1\n'
    steps += '[[answer]]\nstep = "labels"\nof = "best_classes"\nname = "names"\n'
    labeled = CAMERA.replace("[inputs.image]", 'labels = ["red", "green", "blue"]\n[inputs.image]') + steps
    bundle = composed(parts, labeled, "labeled")
    assert bundle.manifest.schema == 2
    answer = ask(bundle, image=squares(64, 64, (2, "blue"))[None])
    assert answer.outputs["names"][0, 0, 0] == "blue"


def blocks(document: str) -> list[str]:
    """Return the TOML of a how-to page."""
    text = (Path(__file__).parents[4] / "docs" / "how-to" / document).read_text()
    return re.findall(r"```toml\n(.*?)```", text, re.DOTALL)


def test_the_documented_pipeline_is_one() -> None:
    whole, ensemble, chain = blocks("pipelines.md")
    file = convert(tomllib.loads(whole), PipelineFile, what="pipelines.md")
    assert {node.name for node in file.nodes} == {"detect", "cut", "who"}
    member = convert(tomllib.loads(ensemble)["nodes"][0], MeanNode, what="pipelines.md")
    assert member.least == 2
    nodes = [convert(node, ModelSource | WindowSource, what="pipelines.md") for node in tomllib.loads(chain)["nodes"]]
    assert [node.name for node in nodes] == ["spectrogram", "picture", "embed", "recent", "head"]


def test_the_documented_steps_are_steps() -> None:
    texts = list(blocks("processing.md"))
    assert len(texts) > 2
    for text in texts:
        found = tomllib.loads(text)
        steps = msgspec.convert(found.get("input", {}).get("steps", []), Steps)
        answers = msgspec.convert(found.get("answer", []), AnswerSteps)
        assert steps or answers


# What is refused, and that the node is named


def edited(before: str, after: str) -> str:
    """Return the camera's file with a part of its text replaced."""
    assert before in CAMERA
    return CAMERA.replace(before, after)


REFUSED = {
    "cycle": ('inputs = { image = "input/image" }', 'inputs = { image = "crop/crops" }', "wait for each other"),
    "unknown node": ('boxes = "detect/found_boxes"', 'boxes = "detector/found_boxes"', "nodes[crop]"),
    "unknown output": ('boxes = "detect/found_boxes"', 'boxes = "detect/boxez"', "nodes[crop]"),
    "unknown input": ("inputs = { x =", "inputs = { y =", "nodes[classify].inputs"),
    "shape": ('inputs = { x = "crop/crops" }', 'inputs = { x = "detect/found_boxes" }', "nodes[classify].inputs[x]"),
    "dtype": ('dtype = "uint8"', 'dtype = "int16"', "nodes[detect].inputs[image]"),
    "count": ('rows = "detect/found_count"', 'rows = "detect/found_scores"', "nodes[classify].rows"),
    "name twice": ('name = "crop"', 'name = "detect"', "nodes[detect]"),
    "output": ('of = "classify/p"', 'of = "classify/q"', "outputs[colors]"),
    "words": ('of = "classify/p"', 'of = "classify/color"', "outputs[colors]"),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the camera's parts."""
    folder = tmp_path_factory.mktemp("parts")
    make_detector(folder / "detector")
    make_colors(folder / "colors")
    write_arrays(folder / "images.npz", {"input_0": squares(64, 64, (5, "red"))[None]})
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_that_does_not_hold_is_not_composed(parts: Path, case: str) -> None:
    before, after, named = REFUSED[case]
    with pytest.raises(ContractError) as caught:
        composed(parts, edited(before, after), case.replace(" ", "-"))
    assert named in str(caught.value)


def test_a_pipeline_in_a_pipeline_is_refused(tmp_path: Path) -> None:
    make_chain(tmp_path, "1.0.0").folder.rename(tmp_path / "inner")
    write_linear_samples(tmp_path / "samples.npz")
    text = (
        'name = "outer"\nversion = "1.0.0"\nsamples = "samples.npz"\n[inputs.x]\ndtype = "float32"\nshape = [-1, 4]\n'
        '[[nodes]]\nkind = "model"\nname = "inner"\nbundle = "inner"\ninputs = { x = "input/x" }\n'
        '[outputs.y]\nof = "inner/y"\n'
    )
    with pytest.raises(ContractError, match=r"nodes\[inner\]"):
        composed(tmp_path, text, "outer")


def test_a_node_of_another_release_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    inner = chain.folder / "nodes" / "first" / "manifest.json"
    inner.write_bytes(inner.read_bytes().replace(b'"version":"1.0.0"', b'"version":"1.0.1"'))
    swapped = sealed(chain)
    with pytest.raises(ContractError, match=r"nodes\[first\]"):
        check_contents(swapped.manifest, lambda path: (swapped.folder / path).read_bytes())
    with pytest.raises(EdgewrightError, match="node first"):
        PipelineEngine().load(swapped.folder / "full.json", EngineSettings())


def test_a_node_whose_file_was_changed_on_the_disk_is_never_run(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, models=[("only", bundles.linear_model())])
    (chain.folder / "nodes" / "first" / "models" / "only.onnx").write_bytes(bundles.wrong_model())
    with pytest.raises(BundleError, match="node first: no variant works"):
        PipelineEngine().load(chain.folder / "full.json", EngineSettings())


def test_a_bundle_whose_tensors_are_not_the_pipelines_is_refused(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    (output,) = chain.manifest.outputs
    other = sealed(chain, outputs=(msgspec.structs.replace(output, shape=(-1, 4)),))
    with pytest.raises(ContractError, match=r"manifest\.outputs"):
        check_contents(other.manifest, lambda path: (other.folder / path).read_bytes())


# The command


def test_the_command_composes_and_says_what_it_made(parts: Path, tmp_path: Path) -> None:
    (parts / "by-command.toml").write_text(CAMERA)
    words = ["bundle", "compose", str(parts / "by-command.toml"), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(edgewright, words, catch_exceptions=False)
    made = json.loads(done.stdout)
    assert [variant["format"] for variant in made["manifest"]["variants"]] == ["pipeline"]
    shown = CliRunner().invoke(edgewright, ["bundle", "inspect", str(tmp_path / "out")], catch_exceptions=False)
    assert "node detect: detector 1.0.0" in shown.stdout
    with pytest.raises(EdgewrightError, match="not empty"):
        CliRunner().invoke(edgewright, words, catch_exceptions=False)


def test_nothing_is_left_of_a_pipeline_that_could_not_be_composed(parts: Path, tmp_path: Path) -> None:
    (parts / "bad.toml").write_text(edited('of = "classify/p"', 'of = "classify/q"'))
    words = ["bundle", "compose", str(parts / "bad.toml"), "--out", str(tmp_path / "out")]
    with pytest.raises(ContractError):
        CliRunner().invoke(edgewright, words, catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []
