"""What a depot answers, to whom, and how fast; without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.makers import fleets

from edge_contracts.limits import MAX_CHUNK_BYTES
from edge_contracts.topics import device_topic
from edge_contracts.transfer import Request, Response, pack, unpack_response
from edge_fleet.depot.depot import Depot, HintWatch
from edge_fleet.depot.rate_limit import Pace, RequesterLimits, TokenBucket
from edge_fleet.errors import ObjectNameError
from edge_fleet.objects import OPEN_FILES, PATTERNS, ObjectReader, locate
from edge_fleet.signing.workspace import FleetWorkspace

TOPIC = device_topic("default", "dev-1", "req")
REPLY = device_topic("default", "dev-1", "rsp", "n1")
SHA = "ab" * 32


@pytest.fixture(name="fleet", scope="module")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> FleetWorkspace:
    """One for all the tests that only read it."""
    return fleets.make_released(tmp_path_factory.mktemp("depot"))


def request(**values: Any) -> Request:
    return Request(**({"id": 7, "reply": REPLY, "kind": "metadata", "name": "timestamp.json"} | values))


def ask(depot: Depot, now: float = 0.0, **values: Any) -> Response | None:
    answer = depot.answer(TOPIC, pack(request(**values)), now)
    return None if answer is None else unpack_response(answer.payload)


def make_depot(fleet: FleetWorkspace, pace: Pace | None = None) -> Depot:
    return Depot(fleet.repository, "default", pace or Pace(), 0.0)


def model_blob(fleet: FleetWorkspace) -> Path:
    return max((path for path in fleet.repository.glob("blobs/*/*")), key=lambda path: path.stat().st_size)


def test_a_request_is_answered_on_its_own_reply_topic_with_its_own_id(fleet: FleetWorkspace) -> None:
    answer = make_depot(fleet).answer(TOPIC, pack(request()), 0.0)
    assert answer is not None
    response = unpack_response(answer.payload)
    assert (answer.topic, response.id, response.status) == (REPLY, 7, "ok")
    assert response.body == (fleet.repository / "metadata/timestamp.json").read_bytes()


def test_a_blob_comes_in_pieces_that_make_the_whole(fleet: FleetWorkspace) -> None:
    depot, blob = make_depot(fleet), model_blob(fleet)
    whole = b""
    while True:
        response = ask(depot, kind="blob", name=blob.name, offset=len(whole))
        assert response is not None
        assert response.total == blob.stat().st_size
        whole += response.body
        if len(whole) == response.total:
            break
    depot.close()
    assert whole == blob.read_bytes()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("metadata", "9.root.json"),
        ("metadata", "1.releases-other.json"),
        ("blob", SHA),
        ("target", f"channels/{SHA}.none.json"),
    ],
)
def test_what_does_not_exist_is_said_not_to_exist(fleet: FleetWorkspace, kind: str, name: str) -> None:
    response = ask(make_depot(fleet), kind=kind, name=name)
    assert response is not None
    assert response.status == "not_found"


def test_an_offset_behind_the_end_is_not_found(fleet: FleetWorkspace) -> None:
    response = ask(make_depot(fleet), kind="blob", name=model_blob(fleet).name, offset=10**9)
    assert response is not None
    assert (response.status, response.body) == ("not_found", b"")


TRAVERSALS = [
    ("metadata", "../fleet.toml"),
    ("metadata", "../../keys/root.pem"),
    ("metadata", "1.releases-../../keys/root.json"),
    ("metadata", "root.json"),
    ("metadata", "timestamp.json\n"),
    ("metadata", "timestamp.json\x00"),
    ("metadata", ".timestamp.json.abc.part"),
    ("target", "../keys/root.pem"),
    ("target", f"channels/../{SHA}.x.json"),
    ("target", f"models/../har/{SHA}.family.json"),
    ("target", f"models/har/../{SHA}.manifest.json"),
    ("target", f"/channels/{SHA}.x.json"),
    ("blob", "../../../etc/passwd"),
    ("blob", SHA.upper()),
    ("blob", f"{SHA}\n"),
    ("blob", f"./{SHA}"),
]


@pytest.mark.parametrize(("kind", "name"), TRAVERSALS)
def test_a_name_that_leaves_the_repository_is_refused(fleet: FleetWorkspace, kind: str, name: str) -> None:
    response = ask(make_depot(fleet), kind=kind, name=name)
    assert response is not None
    assert (response.status, response.body) == ("refused", b"")


@given(kind=st.sampled_from(sorted(PATTERNS)), name=st.text(st.sampled_from("ab01./\\\n%*~-"), max_size=80))
def test_no_name_at_all_is_located_outside_its_folder(kind: Any, name: str) -> None:
    try:
        place = locate(kind, name)
    except ObjectNameError:
        return
    assert ".." not in place.split("/")
    assert place.split("/")[0] in ("metadata", "targets", "blobs")


@pytest.mark.parametrize(
    "reply",
    [
        device_topic("default", "dev-2", "rsp", "n1"),
        device_topic("other", "dev-1", "rsp", "n1"),
        device_topic("default", "dev-1", "reported"),
        "ew/v1/default/hint",
        "ew/v1/default/d/dev-1/rsp/#",
        "$SYS/broker",
    ],
)
def test_a_foreign_reply_topic_gets_no_answer(fleet: FleetWorkspace, reply: str) -> None:
    depot = make_depot(fleet)
    assert ask(depot, reply=reply) is None
    assert depot.counts["foreign"] == 1


def test_a_request_of_another_tenant_gets_no_answer(fleet: FleetWorkspace) -> None:
    topic, reply = device_topic("other", "dev-1", "req"), device_topic("other", "dev-1", "rsp", "n")
    assert make_depot(fleet).answer(topic, pack(request(reply=reply)), 0.0) is None


@pytest.mark.parametrize("length", [0, MAX_CHUNK_BYTES + 1, 2**40])
def test_an_oversized_length_gets_no_answer(fleet: FleetWorkspace, length: int) -> None:
    depot = make_depot(fleet)
    assert ask(depot, length=length) is None
    assert depot.counts["malformed"] == 1


@given(payload=st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_a_depot(payload: bytes) -> None:
    depot = Depot(Path("/nonexistent"), "default", Pace(), 0.0)
    assert depot.answer(TOPIC, payload, 0.0) is None


def test_an_overlong_request_is_not_even_parsed(fleet: FleetWorkspace) -> None:
    payload = msgspec.msgpack.encode([7, REPLY, "metadata", "x" * 200_000, 0, 1])
    assert make_depot(fleet).answer(TOPIC, payload, 0.0) is None


def test_a_symbolic_link_in_the_repository_is_not_followed(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    (fleet.repository / "metadata/7.root.json").symlink_to(fleet.keys.folder / "root.pem")
    response = ask(make_depot(fleet), name="7.root.json")
    assert response is not None
    assert response.status == "not_found"


def test_a_greedy_device_is_told_when_to_come_back_and_others_are_served(fleet: FleetWorkspace) -> None:
    depot, blob = make_depot(fleet, Pace(device_rate=1000.0, device_burst=1000.0)), model_blob(fleet).name
    first, second = ask(depot, kind="blob", name=blob), ask(depot, kind="blob", name=blob)
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == ("ok", "retry_after")
    assert second.retry_after == pytest.approx((len(first.body) - 1000) / 1000)
    other = request(reply=device_topic("default", "dev-2", "rsp", "n"))
    answer = depot.answer(device_topic("default", "dev-2", "req"), pack(other), 0.0)
    assert answer is not None
    assert unpack_response(answer.payload).status == "ok"
    later = ask(depot, now=second.retry_after + 1e-3, kind="blob", name=blob)
    assert later is not None
    assert later.status == "ok"


def test_only_so_many_devices_download_at_once_and_silence_frees_a_place() -> None:
    admission = RequesterLimits(Pace(devices=2, idle_s=5.0), 0.0)
    assert [admission.wait(device, 0.0, bulk=True) for device in ("a", "b", "c")] == [0.0, 0.0, 5.0]
    assert admission.wait("a", 4.0, bulk=True) == 0.0
    assert admission.wait("c", 5.5, bulk=True) == 0.0
    assert admission.wait("b", 5.5, bulk=True) == 5.0


def test_small_questions_need_no_place() -> None:
    admission = RequesterLimits(Pace(devices=1), 0.0)
    assert admission.wait("a", 0.0, bulk=True) == 0.0
    assert {admission.wait(f"dev-{number}", 0.0, bulk=False) for number in range(1000)} == {0.0}
    assert admission.wait("dev-1", 0.0, bulk=True) > 0.0


def test_a_bucket_refills_at_its_rate_up_to_its_burst() -> None:
    bucket = TokenBucket(100.0, 50.0, 0.0)
    bucket.take(150)
    assert bucket.wait(0.0) == 1.0
    assert bucket.wait(1.5) == 0.0
    bucket.take(60)
    assert bucket.wait(1000.0) == 0.0
    bucket.take(60)
    assert bucket.wait(1000.0) == pytest.approx(0.1)


def test_a_shelf_keeps_a_bounded_number_of_files_open(tmp_path: Path) -> None:
    names = [f"{number:064x}" for number in range(OPEN_FILES + 10)]
    (tmp_path / "blobs/00").mkdir(parents=True)
    for name in names:
        (tmp_path / "blobs/00" / name).write_bytes(name.encode())
    shelf = ObjectReader(tmp_path)
    for name in names + names:
        assert shelf.read("blob", name, 0, 100) == (name.encode(), 64)
    assert len(shelf._open) == OPEN_FILES
    shelf.close()


def test_new_metadata_is_read_at_once_although_files_stay_open(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    depot = make_depot(fleet)
    before = ask(depot)
    fleets.start(fleet)
    after = ask(depot)
    assert before is not None
    assert after is not None
    assert before.body != after.body


def test_a_hint_is_given_once_for_each_timestamp(tmp_path: Path) -> None:
    fleet = fleets.make_released(tmp_path)
    watch = HintWatch(fleet.repository)
    first = watch.changed()
    assert first is not None
    assert watch.changed() is None
    fleets.start(fleet)
    second = watch.changed()
    assert second is not None
    assert second.timestamp_version == first.timestamp_version + 1
    watch.forget()
    assert watch.changed() == second


def test_there_is_no_hint_without_a_repository(tmp_path: Path) -> None:
    assert HintWatch(tmp_path).changed() is None
