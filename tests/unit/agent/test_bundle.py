"""Opening bundles: the bytes must be the manifest's, and nothing may lead out of the folder."""

import json
import os

import pytest
from click.testing import CliRunner
from support.makers import bundles as bundle_maker

from edge_agent.bundle import file_entry, hash_file, open_bundle
from edge_agent.cli.bundle import bundle as bundle_group
from edge_contracts.errors import BundleError, ContractError
from edge_contracts.guards import FeatureGuard, InputGuard
from edge_contracts.manifest import Input, LastResort, SampleMapping


@pytest.fixture
def made(tmp_path):
    return bundle_maker.make_bundle(tmp_path / "b", padding=200_000)


def test_an_untouched_bundle_opens(made):
    opened = open_bundle(made.folder)
    assert opened == made
    assert opened.model_sha256(opened.manifest.variants[0]) == hash_file(made.folder / "models/fp32.onnx")
    assert len(opened.manifest.file("padding.bin").chunks) == 4


def test_a_flipped_bit_is_refused_by_file_name(made):
    path = made.folder / "padding.bin"
    data = bytearray(path.read_bytes())
    data[100_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"padding\.bin"):
        open_bundle(made.folder)
    assert open_bundle(made.folder, verify=False).manifest.name == "linear"


def test_a_truncated_file_is_refused_with_both_sizes(made):
    os.truncate(made.folder / "padding.bin", 10)
    with pytest.raises(BundleError, match=r"padding\.bin: 10 bytes, the manifest says 200000"):
        open_bundle(made.folder)


@pytest.mark.parametrize("what", ["models/fp32.onnx", "models", "manifest.json"])
def test_a_symbolic_link_is_refused_even_to_the_right_bytes(made, what):
    path = made.folder / what
    path.rename(made.folder.parent / "elsewhere")
    path.symlink_to(made.folder.parent / "elsewhere")
    with pytest.raises(BundleError, match=what.split("/")[0]):
        open_bundle(made.folder)


def test_a_path_out_of_the_folder_is_refused(made):
    manifest = json.loads((made.folder / "manifest.json").read_bytes())
    for path in ("../../etc/passwd", "/etc/passwd", "models/../../x", "a\\b"):
        manifest["files"][0]["path"] = path
        (made.folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ContractError, match=r"manifest\.files\[0\]\.path"):
            open_bundle(made.folder)


def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_hang(made):
    (made.folder / "padding.bin").unlink()
    os.mkfifo(made.folder / "padding.bin")
    with pytest.raises(BundleError, match="not a regular file"):
        open_bundle(made.folder)


def test_an_oversized_manifest_is_refused_unread(made):
    with (made.folder / "manifest.json").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=r"manifest\.json: over the limit"):
        open_bundle(made.folder)


def test_a_missing_folder_and_a_missing_file_are_named(made, tmp_path):
    with pytest.raises(BundleError, match="nowhere"):
        open_bundle(tmp_path / "nowhere")
    (made.folder / "probe.npz").unlink()
    with pytest.raises(BundleError, match=r"probe\.npz"):
        open_bundle(made.folder)


def test_an_entry_describes_an_empty_file(tmp_path):
    (tmp_path / "empty").touch()
    assert file_entry(tmp_path / "empty", tmp_path).chunks == ()


def test_the_commands_print_one_json_document(made, tmp_path):
    other = bundle_maker.make_bundle(tmp_path / "c", version="1.1.0", padding=200_000)
    for words in (["inspect", made.folder], ["verify", made.folder], ["diff", made.folder, other.folder]):
        done = CliRunner().invoke(bundle_group, [*map(str, words), "--json"], catch_exceptions=False)
        found = json.loads(done.stdout)
        assert CliRunner().invoke(bundle_group, [str(word) for word in words], catch_exceptions=False).exit_code == 0
    assert found["fields"]["version"] == ["1.0.0", "1.1.0"]
    assert found["fetch_bytes"] == 0
    assert found["files"] == {"added": [], "removed": [], "changed": []}


def test_inspect_says_what_is_accepted_and_what_happens_to_the_rest(tmp_path):
    mode = FeatureGuard(index=2, name="mode", categories=(0.0, 1.0), action="reject")
    guard = InputGuard(minimum=-1.0, out_of_range="clip", features=(mode, FeatureGuard(index=0, maximum=0.5)))
    tensor = Input(name="x", dtype="float32", shape=(-1, 4), sample=SampleMapping(dtype="float32"), guard=guard)
    made = bundle_maker.make_bundle(tmp_path / "b", inputs=(tensor,), last_resort=LastResort(kind="last_value"))
    lines = CliRunner().invoke(bundle_group, ["inspect", str(made.folder)]).stdout.splitlines()
    assert [line.strip() for line in lines if line.startswith(("  ", "last"))] == [
        "at least -1, else clip",
        "finite, else reject",
        "mode: 0, 1, else reject",
        "feature 0: at most 0.5, else warn",
        "last resort: last_value",
    ]


def test_diff_counts_only_the_chunks_a_device_lacks(made, tmp_path):
    other = bundle_maker.make_bundle(tmp_path / "c", models=[("fp32", bundle_maker.wrong_model())], padding=300_000)
    done = CliRunner().invoke(bundle_group, ["diff", str(made.folder), str(other.folder), "--json"])
    found = json.loads(done.stdout)
    assert found["files"]["removed"] == ["models/small.onnx"]
    assert 100_000 < found["fetch_bytes"] < 200_000
