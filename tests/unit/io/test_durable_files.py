"""Durable files: all or nothing, exact modes, nothing left behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_io.durable_files import PRIVATE_FILE, delete_tree, make_folder, replacing, write_file


@pytest.mark.parametrize("shared", [True, False])
def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path, shared: bool) -> None:
    place = tmp_path / "file"
    write_file(place, b"old", shared=shared)

    def fail() -> None:
        with replacing(place, shared=shared) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert place.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("mode", "umask", "expected"), [(0o644, 0o077, 0o644), (0o600, 0, 0o600), (None, 0o077, 0o600)]
)
def test_a_mode_is_exact_and_none_follows_the_umask(
    tmp_path: Path, mode: int | None, umask: int, expected: int
) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "file", b"x", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


def test_what_is_private_is_private_while_it_is_written(tmp_path: Path) -> None:
    with replacing(tmp_path / "key", PRIVATE_FILE) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == PRIVATE_FILE
        assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [PRIVATE_FILE]


def test_a_writer_of_its_own_finds_its_leftover_and_replaces_it(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"left by a power cut")
    write_file(tmp_path / "file", b"whole", shared=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_tree_is_deleted_and_links_are_not_followed(tmp_path: Path) -> None:
    kept, doomed = tmp_path / "kept", tmp_path / "doomed"
    make_folder(kept)
    write_file(kept / "file", b"x")
    make_folder(doomed / "a" / "b")
    (doomed / "link").symlink_to(kept)
    delete_tree(doomed)
    assert not doomed.exists()
    assert (kept / "file").exists()
