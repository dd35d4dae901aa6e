"""What a device downloads for a release, by what it has."""

from __future__ import annotations

from edge_contracts.delta import DeltaEntry, Deltas
from edge_contracts.manifest import FileEntry
from edge_fleet.releases.downloads import bytes_between


class _Files:
    """Stands for a manifest, of which only the files count."""

    def __init__(self, **files: int) -> None:
        self.files = [
            FileEntry(path=f"models/{name}", size=size, sha256=name[0] * 64, chunks=(name[0] * 64,))
            for name, size in files.items()
        ]


def _delta(base: str, target: str, size: int, codec: str = "zstd") -> DeltaEntry:
    return DeltaEntry(base=base * 64, target=target * 64, codec=codec, size=size, sha256="d" * 64, chunks=("d" * 64,))


WANTED = _Files(a=1000, b=2000)


def _bytes(held: _Files | None, *deltas: DeltaEntry) -> int:
    listed = Deltas(model="har", version="1.0.1", manifest_sha256="e" * 64, deltas=deltas) if deltas else None
    return bytes_between(held, WANTED, listed)  # type: ignore[arg-type]


def test_a_device_without_a_release_of_the_family_downloads_every_file() -> None:
    assert _bytes(None) == 3000
    assert _bytes(None, _delta("c", "a", 10)) == 3000


def test_files_that_both_releases_have_are_not_downloaded() -> None:
    assert _bytes(_Files(a=1000, c=500)) == 2000
    assert _bytes(_Files(a=1000, b=2000)) == 0


def test_the_smallest_delta_from_a_file_that_is_there_is_taken_and_none_that_is_larger_than_the_file() -> None:
    held = _Files(c=500, f=600)
    assert _bytes(held, _delta("c", "a", 40), _delta("f", "a", 30), _delta("c", "b", 2500)) == 2030
    assert _bytes(held, _delta("9", "a", 5)) == 3000


def test_the_same_file_under_two_paths_is_downloaded_once() -> None:
    wanted = _Files(a=1000)
    wanted.files.append(wanted.files[0])
    assert bytes_between(None, wanted, None) == 1000  # type: ignore[arg-type]
