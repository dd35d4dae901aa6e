"""What a manifest must hold beyond its types; each refusal names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from support.makers.contract_examples import MANIFEST, digest, file_entry

from edge_contracts import limits
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
from edge_contracts.guards import FeatureGuard, OutputGuard
from edge_contracts.manifest import FileEntry, Manifest, SampleSet, manifest_bytes, parse_manifest


def refused(manifest: Manifest, subject: str) -> None:
    """Both sides refuse it: the one that signs and the one that reads."""
    for attempt in (lambda: manifest_bytes(manifest), lambda: parse_manifest(encode(manifest))):
        with pytest.raises(ContractError) as caught:
            attempt()
        assert caught.value.subject == subject, caught.value


def with_files(*extra: FileEntry) -> Manifest:
    return replace(MANIFEST, files=(*MANIFEST.files, *extra))


def test_the_example_is_sound_and_adds_up() -> None:
    assert parse_manifest(manifest_bytes(MANIFEST)) == MANIFEST
    assert MANIFEST.total_bytes == sum(entry.size for entry in MANIFEST.files)
    assert MANIFEST.file("golden.npz").size == 4096
    assert MANIFEST.variant("int8").file == "models/int8.onnx"


def test_asking_for_what_is_not_there_names_it() -> None:
    with pytest.raises(ContractError, match=r"manifest\.files\[nothing\]"):
        MANIFEST.file("nothing")
    with pytest.raises(ContractError, match=r"manifest\.variants\[int2\]"):
        MANIFEST.variant("int2")


@pytest.mark.parametrize(
    "path", ["../../etc/cron.d/x", "/etc/passwd", "a/../../b", "models\\x", ".ssh/authorized_keys"]
)
def test_path_traversal_in_files_is_refused(path: str) -> None:
    refused(with_files(file_entry(path, 10)), "manifest.files[6].path")


@pytest.mark.parametrize("path", ["golden.npz/x", "manifest.json/x", "models/int8.onnx/deep/er"])
def test_a_file_used_as_a_folder_is_refused(path: str) -> None:
    refused(with_files(file_entry(path, 10)), "manifest.files[6].path")


def test_a_manifest_that_lists_itself_is_refused() -> None:
    refused(with_files(file_entry("manifest.json", 10)), "manifest.files[6].path")


def test_one_path_listed_twice_is_refused() -> None:
    refused(with_files(file_entry("golden.npz", 10)), "manifest.files[6]")


@pytest.mark.parametrize("size", [0, 65537, 200000])
def test_too_few_or_too_many_chunks_are_refused(size: int) -> None:
    entry = FileEntry(path="x", size=size, sha256=digest("x"), chunks=(digest("1"),))
    refused(with_files(entry), "manifest.files[6]")


def test_a_bundle_over_the_total_is_refused() -> None:
    chunk = limits.MAX_CHUNK_BYTES
    pieces = 100_000
    entry = FileEntry(path="x", size=limits.MAX_BUNDLE_BYTES + 1, sha256=digest("x"), chunks=(digest("1"),) * pieces)
    with pytest.raises(ContractError, match="over the limit"):
        manifest_bytes(replace(MANIFEST, chunk_size=chunk, files=(*MANIFEST.files, entry)))


@pytest.mark.parametrize("chunk_size", [0, 1023, limits.MAX_CHUNK_BYTES + 1])
def test_a_chunk_size_no_broker_carries_is_refused(chunk_size: int) -> None:
    refused(replace(MANIFEST, chunk_size=chunk_size), "manifest.chunk_size")


def test_a_reference_to_a_file_that_is_not_pinned_is_refused() -> None:
    lost = SampleSet(file="lost.npz", samples=1)
    refused(replace(MANIFEST, probe=lost), "manifest.probe.file")
    refused(replace(MANIFEST, golden=lost), "manifest.golden.file")
    refused(replace(MANIFEST, report="lost.json"), "manifest.report")
    variant = replace(MANIFEST.variants[0], file="lost.onnx")
    refused(replace(MANIFEST, variants=(variant,)), "manifest.variants[0].file")
    variant = replace(MANIFEST.variants[0], recipe="lost.toml")
    refused(replace(MANIFEST, variants=(variant,)), "manifest.variants[0].recipe")


def test_two_rungs_or_tensors_of_one_name_are_refused() -> None:
    refused(replace(MANIFEST, variants=MANIFEST.variants * 2), "manifest.variants[2]")
    refused(replace(MANIFEST, inputs=MANIFEST.inputs * 2), "manifest.inputs[3]")
    refused(replace(MANIFEST, outputs=MANIFEST.outputs * 2), "manifest.outputs[2]")


def test_a_schema_of_the_future_is_refused() -> None:
    refused(replace(MANIFEST, schema=5), "manifest.schema")


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_schema_whose_readers_would_leave_something_out_is_refused(schema: int) -> None:
    refused(replace(MANIFEST, schema=schema), "manifest.schema")


def with_input(index: int, **fields: Any) -> Manifest:
    inputs = list(MANIFEST.inputs)
    inputs[index] = replace(inputs[index], **fields)
    return replace(MANIFEST, inputs=tuple(inputs))


def with_guard(**fields: Any) -> Manifest:
    """The example's first input has the shape [-1, 6, 100], and its features along axis 1."""
    return with_input(0, guard=replace(MANIFEST.inputs[0].guard, **fields))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"minimum": 5.0}, "minimum"),
        ({"axis": 0}, "axis"),
        ({"axis": 3}, "axis"),
        ({"axis": -3}, "axis"),
        ({"features": (FeatureGuard(index=6, minimum=0.0),)}, "features[0].index"),
        ({"features": (FeatureGuard(index=0, minimum=0.0), FeatureGuard(index=0, maximum=0.0))}, "features[1].index"),
        ({"features": (FeatureGuard(index=0),)}, "features[0]"),
        ({"features": (FeatureGuard(index=0, maximum=1.0, categories=(1.0,)),)}, "features[0]"),
        ({"features": (FeatureGuard(index=0, minimum=1.0, maximum=0.5),)}, "features[0].minimum"),
        ({"features": (FeatureGuard(index=0, categories=(1.0, 2.0, 1.0)),)}, "features[0].categories"),
        ({"features": (FeatureGuard(index=0, categories=(1.0,), action="clip"),)}, "features[0].action"),
    ],
)
def test_a_guard_that_means_nothing_is_refused(fields: dict[str, Any], field: str) -> None:
    refused(with_guard(**fields), f"manifest.inputs[0].guard.{field}")


def test_features_of_an_axis_of_any_size_are_refused() -> None:
    refused(with_input(0, shape=(-1, -1, 100)), "manifest.inputs[0].guard.axis")


def test_an_output_guard_that_leaves_nothing_to_answer_is_refused() -> None:
    output = replace(MANIFEST.outputs[0], guard=OutputGuard(minimum=1.0, maximum=0.0))
    refused(replace(MANIFEST, outputs=(output, MANIFEST.outputs[1])), "manifest.outputs[0].guard.minimum")


@pytest.mark.parametrize("part", ["guard", "last_resort"])
def test_a_guard_that_an_agent_does_not_know_is_refused_and_not_left_out(part: str) -> None:
    document = json.loads(encode(MANIFEST))
    place = document["inputs"][0]["guard"] if part == "guard" else document["last_resort"]
    place["from_the_future"] = 1
    with pytest.raises(ContractError, match="from_the_future"):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("path", "value", "subject"),
    [
        (("name",), "../har", "manifest.name"),
        (("version",), "1.2", "manifest.version"),
        (("created",), "yesterday", "manifest.created"),
        (("inputs", 0, "dtype"), "float8", "manifest.inputs[0].dtype"),
        (("inputs", 0, "shape"), [-2], "manifest.inputs[0].shape[0]"),
        (("inputs", 0, "shape"), [1] * 9, "manifest.inputs[0].shape"),
        (("inputs", 0, "sample"), None, "manifest.inputs[0].sample"),
        (("inputs",), [], "manifest.inputs"),
        (("variants", 0, "format"), "pickle", "manifest.variants[0].format"),
        (("variants", 0, "size"), -1, "manifest.variants[0].size"),
        (("variants", 0, "latency_ms"), "fast", "manifest.variants[0].latency_ms"),
        (("files", 0, "sha256"), "0" * 63, "manifest.files[0].sha256"),
        (("files", 0, "size"), 1e3 + 0.5, "manifest.files[0].size"),
        (("lineage",), None, "manifest.lineage"),
    ],
)
def test_a_malformed_field_is_named(path: tuple[str | int, ...], value: Any, subject: str) -> None:
    document = json.loads(encode(MANIFEST))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ContractError) as caught:
        parse_manifest(json.dumps(document).encode())
    assert caught.value.subject == subject
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("field", ["name", "version", "created", "inputs", "outputs", "variants", "lineage", "files"])
def test_a_missing_field_is_named(field: str) -> None:
    document = json.loads(encode(MANIFEST))
    del document[field]
    with pytest.raises(ContractError, match=f"missing required field `{field}`"):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("index", "fields", "subject"),
    [
        (1, {"constant": (1, 2)}, "manifest.inputs[1].constant"),
        (1, {"feedback": "next"}, "manifest.inputs[1]"),
        (2, {"feedback": "nothing"}, "manifest.inputs[2].feedback"),
        (2, {"dtype": "float16"}, "manifest.inputs[2].feedback"),
        (2, {"shape": (2, 1, 32)}, "manifest.inputs[2].feedback"),
    ],
)
def test_a_constant_or_a_state_that_does_not_fit_is_refused(index: int, fields: dict[str, Any], subject: str) -> None:
    refused(with_input(index, **fields), subject)


def test_a_model_that_nothing_is_asked_of_is_refused() -> None:
    refused(replace(MANIFEST, inputs=MANIFEST.inputs[1:]), "manifest.inputs")


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        ({"of": "scores"}, "of"),
        ({"own": (0.0, 1.0)}, ""),
        ({"own": (0.0, 0.5, 0.5)}, ""),
        ({"original": (1.0, 0.5, 0.0)}, ""),
    ],
)
def test_a_map_of_scores_that_means_nothing_is_refused(fields: dict[str, Any], subject: str) -> None:
    first = MANIFEST.variants[0]
    changed = replace(first, score_maps=(replace(first.score_maps[0], **fields),))
    broken = replace(MANIFEST, variants=(changed, *MANIFEST.variants[1:]))
    with pytest.raises(ContractError) as caught:
        manifest_bytes(broken)
    assert caught.value.subject == ".".join(filter(None, ["manifest.variants[0].score_maps[0]", subject]))


def test_a_floor_of_an_output_that_is_not_there_is_refused() -> None:
    first = MANIFEST.variants[0]
    changed = replace(first, floors=(replace(first.floors[0], output="probabilities"),))
    refused(replace(MANIFEST, variants=(changed,)), "manifest.variants[0].floors[0].output")
