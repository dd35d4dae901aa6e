"""The state folder: all or nothing, and never without a way back."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from support.makers import bundles

from edge_agent.engines.registry import engine_for
from edge_agent.ports import EngineSettings
from edge_agent.storage.durable import DiskFullError, StateError, write_durably
from edge_agent.storage.state_dir import StateFolder, takes_files
from edge_agent.update.record import UpdateRecord
from edge_io.durable_files import delete_tree


def folder(path: Path) -> StateFolder:
    state = StateFolder(path / "state")
    state.create()
    return state


def test_records_come_back(tmp_path: Path) -> None:
    state = folder(tmp_path)
    record = UpdateRecord(slot="main", state="offered", since=5.0, rejected=("a" * 64,))
    state.write_record(record)
    assert state.read_record("main") == record


def test_unwritten_slot_is_idle(tmp_path: Path) -> None:
    assert folder(tmp_path).read_record("main") == UpdateRecord(slot="main")


def test_damaged_record_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    state = folder(tmp_path)
    (state.slots / "main.json").write_text("{")
    with pytest.raises(StateError, match=r"main\.json"):
        state.read_record("main")


def test_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record"
    write_durably(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFullError, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_garbage_collection_keeps_what_is_named(tmp_path: Path) -> None:
    state = folder(tmp_path)
    for name in ("keep", "gone"):
        (state.releases / name).mkdir()
        (state.downloads / name).mkdir()
    (state.releases / ".gone-half").mkdir()
    assert state.collect_garbage({"keep"}) == ["gone", "gone"]
    assert [path.name for path in state.releases.iterdir()] == ["keep"]
    assert [path.name for path in state.downloads.iterdir()] == ["keep"]


def test_optimized_models_go_with_their_release(tmp_path: Path) -> None:
    state = folder(tmp_path / "device")
    cached = {}
    for version in ("1.0.0", "1.1.0"):
        bundle = bundles.make_bundle(tmp_path / version, version=version, models=[("fp32", model_of(version))])
        shutil.copytree(bundle.folder, state.release(bundle.manifest_sha256))
        model = state.release(bundle.manifest_sha256) / "models" / "fp32.onnx"
        before = set(state.cache.iterdir())
        engine_for("onnx").load(model, EngineSettings(cache=state.cache))
        (cached[bundle.manifest_sha256],) = set(state.cache.iterdir()) - before
    old, new = cached
    assert state.collect_garbage({old, new}) == []
    assert len(list(state.cache.iterdir())) == 2
    assert state.collect_garbage({new}) == [old]
    assert list(state.cache.iterdir()) == [cached[new]]


def model_of(version: str) -> bytes:
    return bundles.scaled_model(1.0 if version == "1.0.0" else 2.0)


def test_a_folder_is_deleted_with_all_that_is_in_it_and_nothing_that_it_points_to(tmp_path: Path) -> None:
    kept, doomed = tmp_path / "kept", tmp_path / "doomed"
    for folder in (kept, doomed / "a" / "b", doomed / "empty"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (doomed / "empty" / "file").unlink()
    (doomed / "to-a-folder").symlink_to(kept)
    (doomed / "to-nowhere").symlink_to(tmp_path / "nowhere")
    delete_tree(doomed)
    assert not doomed.exists()
    doomed.symlink_to(kept)
    delete_tree(doomed)
    assert not doomed.is_symlink()
    assert (kept / "file").exists()
    delete_tree(doomed)


@pytest.mark.parametrize(("number", "takes"), [(errno.EROFS, False), (errno.EIO, False), (errno.ENOSPC, True)])
def test_a_folder_takes_files_if_one_can_be_made_and_a_full_disk_is_another_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, takes: bool
) -> None:
    assert takes_files(tmp_path)
    assert not list(tmp_path.iterdir())

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("edge_agent.storage.state_dir.os.open", refuse)
    assert takes_files(tmp_path) is takes
