"""Captures on the disk: bounded, whole after a cut, unreadable without the operator's key, refused where changed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.answer import Answer, Prediction
from edge_agent.capture.files import bytes_in, capture_files
from edge_agent.capture.record import arrays, captured_request, decode_captured, encode_captured
from edge_agent.capture.ring import FILES, CaptureRecord, CaptureRing, read_captures
from edge_agent.capture.sealing import (
    PRIVATE_NAME,
    PUBLIC_NAME,
    Opener,
    Sealer,
    SealError,
    load_opener,
    load_sealer,
    make_keys,
)
from edge_agent.config.agent_toml import AgentConfig, load_config, parse_config
from edge_agent.config.reload_plan import plan_reload
from edge_agent.config.shadow_capture import CaptureConfig
from edge_agent.errors import ConfigError
from edge_agent.host.governor import Readings
from edge_agent.supervisor.slots.capture_quota import CaptureQuota
from edge_agent.worker.capture_writer import CaptureWriter
from edge_agent.worker.request_tap import EVERY_S, RequestTap, kinds
from edge_contracts.errors import ContractError, EdgewrightError, OperatorError

MIB = 1024 * 1024
KEY = X25519PrivateKey.generate()
SEALER, OPENER = Sealer(KEY.public_key()), Opener(KEY)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, None)
    return folder


@pytest.fixture(scope="module")
def sealer(keys: Path) -> Sealer:
    return load_sealer(keys / PUBLIC_NAME)


@pytest.fixture(scope="module")
def opener(keys: Path) -> Opener:
    return load_opener(keys / PRIVATE_NAME, None)


def fill(folder: Path, sealer: Sealer, contents: list[bytes], limit: int = MIB) -> None:
    ring = CaptureRing(folder, sealer, limit)
    for content in contents:
        ring.write(content)
    ring.close()


def read(folder: Path, opener: Opener) -> tuple[list[CaptureRecord], list[str]]:
    damaged: list[str] = []
    return list(read_captures(folder, opener, lambda _, why: damaged.append(why))), damaged


def test_what_was_sealed_is_read_back_in_order(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    contents = [os.urandom(size) for size in (0, 1, 1000, 50_000)]
    fill(tmp_path, sealer, contents)
    records, damaged = read(tmp_path, opener)
    assert [record.content for record in records] == contents
    assert [record.number for record in records] == [0, 1, 2, 3]
    assert not damaged


def test_ring_never_holds_more_than_it_may_and_keeps_the_newest(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    ring = CaptureRing(tmp_path, sealer, MIB)
    for index in range(300):
        ring.write(index.to_bytes(4, "big") + bytes(20_000))
        assert bytes_in(capture_files(tmp_path)) <= MIB
    ring.close()
    numbers = sorted(int.from_bytes(record.content[:4], "big") for record in read(tmp_path, opener)[0])
    assert numbers == list(range(numbers[0], 300))
    assert len(numbers) * 20_000 > MIB * (FILES - 3) / FILES


def test_two_workers_share_a_ring_within_its_bound(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    rings = [CaptureRing(tmp_path, sealer, MIB) for _ in range(2)]
    for index in range(200):
        rings[index % 2].write(bytes(20_000))
        assert bytes_in(capture_files(tmp_path)) <= MIB
    assert not read(tmp_path, opener)[1]
    for ring in rings:
        ring.close()


def test_captures_are_for_their_owner_only(tmp_path: Path, sealer: Sealer) -> None:
    fill(tmp_path / "captures", sealer, [b"x"])
    (path,) = capture_files(tmp_path / "captures")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_cut_at_any_byte_leaves_the_whole_records_before_it(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    fill(tmp_path / "whole", sealer, [b"first", b"second", b"third"])
    (path,) = capture_files(tmp_path / "whole")
    data = path.read_bytes()
    (tmp_path / "cut").mkdir()
    cut = tmp_path / "cut" / path.name
    for size in range(52, len(data)):
        cut.write_bytes(data[:size])
        records, damaged = read(cut.parent, opener)
        assert [record.content for record in records] == [b"first", b"second", b"third"][: len(records)]
        assert len(records) == sum(size >= 52 + end for end in (57, 115, 172))
        assert not damaged
        cut.write_bytes(data[:size] + bytes(4096))  # room that the file system had set aside
        assert not [why for why in read(cut.parent, opener)[1] if "other" in why]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    ring = CaptureRing(tmp_path, sealer, MIB)
    ring.write(b"before")
    limited = FullDisk(ring._file)
    ring._file = limited  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space"):
        ring.write(b"lost")
    limited.full = False
    ring.write(b"after")
    ring.close()
    records, damaged = read(tmp_path, opener)
    assert [record.content for record in records] == [b"before", b"after"]
    assert not damaged


class FullDisk:
    """A file that takes half of what it is given and then has no space left."""

    def __init__(self, file: object) -> None:
        self._file = file
        self.full = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # type: ignore[attr-defined]

    def write(self, data: bytes) -> int:
        if self.full:
            self._file.write(data[: len(data) // 2])  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._file.write(data))  # type: ignore[attr-defined]


def test_stolen_device_gives_no_input_away(tmp_path: Path, keys: Path, sealer: Sealer) -> None:
    secret = b"the face in front of the camera"
    fill(tmp_path / "captures", sealer, [secret])
    shutil.copy(keys / PUBLIC_NAME, tmp_path)
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret not in everything
    with pytest.raises(OperatorError, match="private key"):
        load_opener(tmp_path / PUBLIC_NAME, None)
    make_keys(tmp_path / "thief", None)
    with pytest.raises(OperatorError, match="another key"):
        read(tmp_path / "captures", load_opener(tmp_path / "thief" / PRIVATE_NAME, None))


def test_two_equal_inputs_do_not_look_equal(sealer: Sealer) -> None:
    assert sealer.seal(b"same", b"") != sealer.seal(b"same", b"")


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_changed_bit_is_refused(at: int, bit: int) -> None:
    sealed = bytearray(SEALER.seal(b"x" * 100, b"here"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(SealError):
        OPENER.open(bytes(sealed), b"here")


def test_a_box_moved_elsewhere_is_refused() -> None:
    with pytest.raises(SealError):
        OPENER.open(SEALER.seal(b"x", b"record 1"), b"record 2")


@given(st.binary(max_size=200))
def test_nonsense_is_no_box(data: bytes) -> None:
    with pytest.raises(SealError):
        OPENER.open(data, b"")


def test_low_order_points_are_refused() -> None:
    with pytest.raises(SealError):
        OPENER.open(bytes(32) + bytes(32), b"")


def test_records_put_in_another_order_are_found_out(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    fill(tmp_path, sealer, [b"one", b"two", b"six"])
    (path,) = capture_files(tmp_path)
    data, size = path.read_bytes(), 4 + 48 + 3
    path.write_bytes(data[:52] + data[52 + size : 52 + 2 * size] + data[52 : 52 + size] + data[52 + 2 * size :])
    records, damaged = read(tmp_path, opener)
    assert not records
    assert "record 0" in damaged[0]


def test_a_file_that_is_no_capture_is_told_of_and_passed_over(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    fill(tmp_path, sealer, [b"one"])
    (tmp_path / "0.capture").write_bytes(b"hello")
    records, damaged = read(tmp_path, opener)
    assert [record.content for record in records] == [b"one"]
    assert damaged == ["not a capture file"]


def test_length_beyond_every_record_is_not_allocated(tmp_path: Path, sealer: Sealer, opener: Opener) -> None:
    fill(tmp_path, sealer, [b"one"])
    (path,) = capture_files(tmp_path)
    path.write_bytes(path.read_bytes()[:52] + b"\xff\xff\xff\xff" + b"x" * 100)
    records, damaged = read(tmp_path, opener)
    assert not records
    assert "4294967295 bytes" in damaged[0]


def test_keys_are_never_written_over_and_the_private_one_is_private(tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, None)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    with pytest.raises(OperatorError, match="file exists"):
        make_keys(tmp_path, None)
    assert private.read_bytes() == before
    with pytest.raises(OperatorError, match="is a private key"):
        load_sealer(private)
    assert load_sealer(public).public_bytes == load_opener(private, None).public_bytes


def test_private_key_with_a_passphrase_needs_it(tmp_path: Path) -> None:
    private, _ = make_keys(tmp_path, b"correct horse")
    assert load_opener(private, b"correct horse")
    for wrong in (None, b"battery staple"):
        with pytest.raises(OperatorError):
            load_opener(private, wrong)


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_files_that_are_no_keys_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.pem"
    path.write_bytes(content)
    for load in (load_sealer, lambda path: load_opener(path, None)):
        with pytest.raises(OperatorError, match=r"some\.pem"):
            load(path)


def answer(**fields: object) -> Answer:
    usual = {"outputs": {"y": np.array([[1, 2]], np.float32)}, "served_by": "active:1.0.0/fp32", "version": "1.0.0"}
    rest = {"model_sha256": "a" * 64, "abstained": False, "warnings": (), "timing_us": 10}
    return Answer(**(usual | rest | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
        np.array(3, np.int64),
        np.array([True, False]),
        np.zeros((0, 3), np.uint8),
        np.arange(4, dtype=">i2"),
    ],
    ids=["plain", "transposed", "scalar", "bool", "empty", "big-endian"],
)
def test_a_request_survives_as_bytes(array: np.ndarray) -> None:
    record = decode_captured(encode_captured(captured_request({"x": array}, answer(outputs={"y": array}), 12.5)))
    assert (record.time, record.served_by) == (12.5, "active:1.0.0/fp32")
    for found in (arrays(record.inputs)["x"], arrays(record.outputs)["y"]):
        assert found.dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(found, array)


@given(st.binary(max_size=300))
def test_nonsense_is_no_request(data: bytes) -> None:
    with pytest.raises(EdgewrightError):
        arrays(decode_captured(data).inputs)


def test_tensor_with_fewer_bytes_than_its_shape_is_refused() -> None:
    whole = encode_captured(captured_request({"x": np.zeros(4, np.float32)}, answer(), 0.0))
    with pytest.raises(ContractError, match="x"):
        arrays(decode_captured(whole.replace(b"\x91\x04", b"\x91\x05")).inputs)


def test_kinds_of_answers() -> None:
    usual = "active:1.0.0/fp32"
    assert kinds(answer(), usual) == ()
    assert kinds(answer(abstained=True), usual) == ("abstained",)
    assert kinds(answer(prediction=Prediction(coverage=0.9, sets=((0, 1),))), usual) == ("uncertain",)
    assert kinds(answer(warnings=("out of range",)), usual) == ("errors",)
    assert kinds(answer(served_by="last-good:0.9.0/fp32"), usual) == ("errors",)


def look(tmp_path: Path, keys: Path, answers: list[Answer], **settings: object) -> dict[str, int]:
    """Show answers to an onlooker that captures; return its counters once all is written."""
    capture = CaptureConfig(key=str(keys / PUBLIC_NAME), folder=str(tmp_path / "captures"), share=1.0, **settings)  # type: ignore[arg-type]
    recorder = CaptureWriter(capture, failed=pytest.fail)
    onlooker = RequestTap("active:1.0.0/fp32", None, recorder)
    onlooker.allow(shadow=0.0, capture=True)
    for each in answers:
        onlooker._free_at = 0.0  # as if time had passed
        onlooker.look({"x": np.zeros((1, 4), np.float32)}, each)
    recorder.close(wait_s=30.0)
    return onlooker.total()


def test_only_what_was_asked_for_is_captured(tmp_path: Path, keys: Path, opener: Opener) -> None:
    answers = [answer(), answer(abstained=True, outputs={}), answer(warnings=("odd",))]
    assert look(tmp_path, keys, answers, only=("abstained",))["captured"] == 1
    (record,) = read(tmp_path / "captures", opener)[0]
    assert decode_captured(record.content).abstained


def test_requests_too_close_together_are_left_out_and_counted(tmp_path: Path, keys: Path) -> None:
    capture = CaptureConfig(key=str(keys / PUBLIC_NAME), folder=str(tmp_path / "captures"), share=1.0)
    recorder = CaptureWriter(capture, failed=pytest.fail)
    onlooker = RequestTap("", None, recorder)
    onlooker.allow(shadow=0.0, capture=True)
    onlooker.look({"x": np.zeros(4, np.float32)}, answer())
    onlooker._free_at += 1000 * EVERY_S
    onlooker.look({"x": np.zeros(4, np.float32)}, answer())
    recorder.close(wait_s=30.0)
    assert (onlooker.total()["captured"], onlooker.total()["capture_skipped"]) == (1, 1)


def test_a_request_too_large_for_the_ring_is_left_out(tmp_path: Path, keys: Path) -> None:
    capture = CaptureConfig(key=str(keys / PUBLIC_NAME), folder=str(tmp_path / "captures"), share=1.0, max_mb=1.0)
    recorder = CaptureWriter(capture, failed=pytest.fail)
    onlooker = RequestTap("", None, recorder)
    onlooker.allow(shadow=0.0, capture=True)
    onlooker.look({"x": np.zeros(MIB, np.float32)}, answer())
    recorder.close(wait_s=30.0)
    assert onlooker.total()["captured"] == 0
    assert bytes_in(capture_files(tmp_path / "captures")) <= MIB


def test_a_folder_that_cannot_be_made_is_told_and_stops_nothing(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    capture = CaptureConfig(key=str(keys / PUBLIC_NAME), folder=str(tmp_path / "file" / "captures"), share=1.0)
    recorder = CaptureWriter(capture, told.append)
    assert recorder.put(b"one")
    assert recorder.put(b"two")
    recorder.close(wait_s=30.0)
    assert len(told) == 1


def test_captures_pause_with_the_governor_the_disk_and_the_budget(tmp_path: Path) -> None:
    now = 1e9
    capturing = CaptureQuota(CaptureConfig(key="k", folder=str(tmp_path), daily_mb=1.0), lambda: now)
    assert not capturing.allowed  # before anybody has looked at the box
    capturing.allow(Readings(disk_free_mb=1000.0), calm=True)
    assert capturing.allowed
    capturing.allow(Readings(disk_free_mb=1000.0), calm=False)
    assert not capturing.allowed
    capturing.allow(Readings(disk_free_mb=10.0), calm=True)
    assert not capturing.allowed
    capturing.allow(Readings(), calm=True)
    capturing.count(MIB)
    assert not capturing.allowed
    now += 86_400.0
    assert capturing.allowed


def test_what_was_captured_today_counts_after_a_restart(tmp_path: Path, sealer: Sealer) -> None:
    fill(tmp_path, sealer, [bytes(100_000)] * 9, 100 * MIB)
    (path,) = capture_files(tmp_path)
    path.rename(path.with_name(f"20010909T000000-x{path.suffix}"))
    capturing = CaptureQuota(CaptureConfig(key="k", folder=str(tmp_path), daily_mb=0.5), lambda: 1e9)  # 2001-09-09
    capturing.allow(Readings(), calm=True)
    assert not capturing.allowed


def configured(*slots: dict[str, object]) -> AgentConfig:
    named = [{"name": f"s{i}", "factory": "f", "http": "127.0.0.1:0"} | slot for i, slot in enumerate(slots)]
    return parse_config({"device": {"id": "d"}, "slots": named})


@pytest.mark.parametrize(
    ("slots", "field"),
    [
        ([{"capture": {"key": "k", "only": ["uncertain"]}}], r"slots\[0\]\.capture\.only"),
        (
            [{"capture": {"key": "k", "folder": "/c"}}, {"capture": {"key": "k", "folder": "/c"}}],
            r"slots\[1\]\.capture",
        ),
        ([{"capture": {"share": 0.1}}], r"slots\[0\]\.capture"),
        ([{"capture": {"key": "k", "share": 1.5}}], r"slots\[0\]\.capture\.share"),
        ([{"capture": {"key": "k", "only": ["everything"]}}], r"slots\[0\]\.capture\.only"),
        ([{"shadow": {"share": -0.1}}], r"slots\[0\]\.shadow\.share"),
    ],
)
def test_wrong_settings_are_refused_by_field(slots: list[dict[str, object]], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        configured(*slots)


def test_captures_of_each_slot_lie_in_the_state_folder_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[device]\nid = "d"\nstate = "state"\n'
        '[[slots]]\nname = "a"\nfactory = "f"\n[slots.capture]\nkey = "capture.pub"\n'
    )
    (slot,) = load_config(path).slots
    assert slot.capture is not None
    assert slot.capture.folder == str(tmp_path / "state" / "captures" / "a")
    assert slot.capture.key == str(tmp_path / "capture.pub")


def test_shadow_and_capture_may_change_while_the_agent_runs() -> None:
    changed = configured({"capture": {"key": "k", "share": 0.5}, "shadow": {"share": 0.2}})
    assert plan_reload(configured({}), changed).altered == changed.slots
