"""What a manifest must hold beyond its types; each refusal names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from contract_examples import MANIFEST, digest, file_entry
from msgspec.structs import replace

from edge_contracts import limits
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError
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
    refused(replace(MANIFEST, inputs=MANIFEST.inputs * 2), "manifest.inputs[1]")
    refused(replace(MANIFEST, outputs=MANIFEST.outputs * 2), "manifest.outputs[1]")


def test_a_schema_of_the_future_is_refused() -> None:
    refused(replace(MANIFEST, schema=3), "manifest.schema")


def test_steps_under_a_schema_whose_readers_would_leave_them_out_are_refused() -> None:
    refused(replace(MANIFEST, schema=1), "manifest.schema")


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
