"""Chunks on the disk and on their way: what is known to be here, what is asked for, and what a failure leaves."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import DamagedError, NotFoundError, UnreachableError
from edge_agent.ports import ObjectKind
from edge_agent.updater import chunks as chunk_module
from edge_agent.updater.byte_budget import BudgetError, ByteBudget
from edge_agent.updater.chunks import BITMAP, ChunkFolder, Fetcher, Piece, read_piece
from edge_contracts.errors import TransportError
from edge_contracts.manifest import FileEntry
from edge_contracts.profile import NetworkBudget

SIZE = 10
CONTENT = {"a": b"0123456789abcdefghij", "sub/b": b"ABCDEFGHIJKLM", "empty": b""}
LENGTHS = [10, 10, 10, 3]


def entry(path: str) -> FileEntry:
    data = CONTENT[path]
    pieces = tuple(hashlib.sha256(data[at : at + SIZE]).hexdigest() for at in range(0, len(data), SIZE))
    return FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), chunks=pieces)


FILES = tuple(map(entry, CONTENT))
BY_HASH = {hashlib.sha256(data).hexdigest(): data for data in CONTENT.values()}


class Carrier:
    """Brings what is asked for; `spoil` may change or refuse a reply by its number."""

    def __init__(self, spoil: Callable[[int, bytes], bytes] = lambda _, data: data) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self._spoil = spoil
        self._lock = threading.Lock()

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        assert kind == "blob"
        with self._lock:
            self.asked.append((name, offset, length))
            data = BY_HASH[name]
            return self._spoil(len(self.asked), data[offset : offset + length]), len(data)


def folder_of(path: Path) -> ChunkFolder:
    made = ChunkFolder(path / "f", FILES, SIZE)
    made.prepare()
    return made


def fetcher(carrier: Carrier, *, limit: int = 1000, window: int = 1, retries: int = 3) -> Fetcher:
    return Fetcher(
        carrier=carrier, network=NetworkBudget(window=window, retries=retries), traffic=ByteBudget(limit=limit)
    )


def data_of(piece: Piece) -> bytes:
    return CONTENT[piece.entry.path][piece.offset : piece.offset + piece.length]


def test_pieces_are_numbered_over_all_files_and_the_last_of_each_is_shorter(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    assert [(p.number, p.entry.path, p.offset, p.length) for p in made.pieces] == [
        (0, "a", 0, 10), (1, "a", 10, 10), (2, "sub/b", 0, 10), (3, "sub/b", 10, 3),
    ]  # fmt: skip
    assert [p.sha256 for p in made.pieces] == [sha256 for one in FILES for sha256 in one.chunks]
    assert made.here_bytes == 0
    assert made.missing() == list(made.pieces)


def test_a_piece_fits_its_own_bytes_only() -> None:
    piece = ChunkFolder(Path("/nowhere"), FILES, SIZE).pieces[3]
    assert piece.fits(b"KLM")
    for other in (b"KLm", b"KL", b"KLMN", b""):
        assert not piece.fits(other)


def test_files_get_their_size_and_what_has_it_is_left(tmp_path: Path) -> None:
    (tmp_path / "f" / "sub").mkdir(parents=True)
    (tmp_path / "f" / "sub" / "b").write_bytes(b"x" * 13)
    (tmp_path / "f" / "a").write_bytes(b"too short")
    folder_of(tmp_path)
    assert (tmp_path / "f" / "sub" / "b").read_bytes() == b"x" * 13
    assert (tmp_path / "f" / "a").read_bytes() == bytes(20)
    assert (tmp_path / "f" / "empty").read_bytes() == b""


def test_what_was_noted_is_known_again_and_what_is_damaged_is_forgotten(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    for piece in made.pieces[:3]:
        made.store(piece, data_of(piece))
        made.store(piece, data_of(piece))  # twice counts once
    assert made.here_bytes == 30
    made.note()
    again = folder_of(tmp_path)
    assert (again.here_bytes, [p.number for p in again.missing()]) == (30, [3])
    (tmp_path / "f" / "a").write_bytes(b"0123456789Xbcdefghij")
    again.check()
    assert (again.here_bytes, [p.number for p in again.missing()]) == (20, [1, 3])
    assert read_piece(tmp_path / "f" / "sub" / "b", again.pieces[2]) == b"ABCDEFGHIJ"
    again.forget()
    again.forget()
    assert folder_of(tmp_path).here_bytes == 0


@pytest.mark.parametrize("bitmap", [b"", b"\1\1\1", b"\1\1\1\1\1"])
def test_a_bitmap_of_other_files_says_nothing(tmp_path: Path, bitmap: bytes) -> None:
    folder_of(tmp_path)
    (tmp_path / "f" / BITMAP).write_bytes(bitmap)
    assert folder_of(tmp_path).here_bytes == 0


@pytest.mark.parametrize("window", [1, 2, 8])
def test_everything_asked_for_is_fetched_once_and_told(tmp_path: Path, window: int) -> None:
    made, carrier, told = folder_of(tmp_path), Carrier(), list[int]()
    fetcher(carrier, window=window).fetch(made, made.missing(), lambda piece: told.append(piece.number))
    assert sorted(told) == [0, 1, 2, 3]
    assert sorted(length for _, _, length in carrier.asked) == sorted(LENGTHS)
    assert {path: (tmp_path / "f" / path).read_bytes() for path in CONTENT} == CONTENT
    assert (tmp_path / "f" / BITMAP).read_bytes() == b"\1\1\1\1"


def test_no_more_than_the_window_is_in_flight(tmp_path: Path) -> None:
    flying, most, lock = set[int](), list[int](), threading.Lock()
    barrier = threading.Barrier(2, timeout=5)

    class Slow(Carrier):
        def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
            with lock:
                flying.add(offset + length)
                most.append(len(flying))
            barrier.wait()
            with lock:
                flying.discard(offset + length)
            barrier.wait()
            return super().read(kind, name, offset, length)

    made = folder_of(tmp_path)
    fetcher(Slow(), window=2).fetch(made, made.missing(), lambda _: None)
    assert max(most) == 2


def test_a_damaged_chunk_is_asked_for_again_and_costs_the_budget_each_time(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    carrier = Carrier(lambda number, data: b"#" * len(data) if number <= 2 else data)
    one = fetcher(carrier)
    one.fetch(made, made.pieces[:1], lambda _: None)
    assert (len(carrier.asked), one.traffic.used) == (3, 30)


def test_a_chunk_that_stays_damaged_fails_by_its_file_after_the_tries(tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    carrier = Carrier(lambda _, data: b"#" * len(data))
    with pytest.raises(DamagedError, match="chunk at 10") as failed:
        fetcher(carrier).fetch(made, made.pieces[1:2], lambda _: pytest.fail("told of damaged bytes"))
    assert failed.value.subject == "a"
    assert len(carrier.asked) == 3
    assert made.here_bytes == 0


def test_an_outage_does_not_use_up_the_day(tmp_path: Path) -> None:
    def away(_: int, __: bytes) -> bytes:
        raise UnreachableError("no answer", subject="depot")

    made, one = folder_of(tmp_path), fetcher(Carrier(away))
    with pytest.raises(UnreachableError, match="no answer"):
        one.fetch(made, made.missing(), lambda _: None)
    assert one.traffic.used == 0


def test_what_is_not_there_is_not_asked_for_again(tmp_path: Path) -> None:
    def gone(_: int, __: bytes) -> bytes:
        raise NotFoundError("no such object", subject="depot")

    made, carrier = folder_of(tmp_path), Carrier(gone)
    with pytest.raises(NotFoundError):
        fetcher(carrier).fetch(made, made.pieces[:1], lambda _: None)
    assert len(carrier.asked) == 1


@pytest.mark.parametrize(("limit", "fetched"), [(33, 4), (32, 3), (30, 3), (29, 2), (9, 0)])
def test_the_budget_is_never_passed_and_what_came_is_kept(tmp_path: Path, limit: int, fetched: int) -> None:
    made, told = folder_of(tmp_path), list[int]()
    one = fetcher(Carrier(), limit=limit)
    if fetched == 4:
        one.fetch(made, made.missing(), lambda piece: told.append(piece.number))
    else:
        with pytest.raises(BudgetError, match=f"limit {limit}"):
            one.fetch(made, made.missing(), lambda piece: told.append(piece.number))
    assert told == list(range(fetched))
    assert one.traffic.used == sum(LENGTHS[:fetched])
    assert folder_of(tmp_path).here_bytes == sum(LENGTHS[:fetched])


def test_what_is_in_the_air_when_one_fails_is_kept(tmp_path: Path) -> None:
    def first_fails(number: int, data: bytes) -> bytes:
        if data.startswith(b"012"):
            raise TransportError("broken", subject="depot")
        return data

    made, told = folder_of(tmp_path), list[int]()
    with pytest.raises(TransportError, match="broken"):
        fetcher(Carrier(first_fails), window=4, retries=1).fetch(
            made, made.missing(), lambda piece: told.append(piece.number)
        )
    assert sorted(told) == [1, 2, 3]
    assert folder_of(tmp_path).here_bytes == 23


def test_after_a_failure_nothing_more_is_asked_for(tmp_path: Path) -> None:
    def second_fails(number: int, data: bytes) -> bytes:
        if number == 2:
            raise TransportError("broken", subject="depot")
        return data

    made, carrier = folder_of(tmp_path), Carrier(second_fails)
    with pytest.raises(TransportError, match="broken"):
        fetcher(carrier).fetch(made, made.missing(), lambda _: None)
    assert len(carrier.asked) == 2


def test_the_bitmap_is_written_now_and_then_and_not_with_each_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, noted, now = folder_of(tmp_path), list[int](), [100.0]
    monkeypatch.setattr(chunk_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(made, "note", lambda: noted.append(made.here_bytes))

    def told(piece: Piece) -> None:
        now[0] += 0.3

    fetcher(Carrier()).fetch(made, made.missing(), told)
    assert noted == [20, 33, 33]  # after 0.6 s, after 0.6 s more, and at the end
