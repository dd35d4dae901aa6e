"""An updater that is offered deltas: fewer bytes on the wire, and the signed release whatever the deltas are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from support.makers.deltas import ballasted, forged
from support.sites.update_site import MODEL, TamperingCarrier, UpdateSite, names, troubles

from edge_agent.errors import NotFoundError, UnreachableError
from edge_agent.ipc.updater import DeltaUnused, DeltaUsed, FromUpdater, Stored
from edge_agent.ports import ObjectKind, Transport
from edge_agent.updater.delta_rebuild import FOLDER
from edge_contracts.codec import encode
from edge_contracts.delta import Deltas, Insert, deltas_target, parse_deltas
from edge_contracts.limits import KIB
from edge_fleet.releases.release import releases_role

NUDGED = 0.01


class Counting:
    """Counts the bytes of blobs that come, and stops bringing any after `left`; names in `gone` are not there."""

    def __init__(self, inner: Transport, left: int = 10**9, gone: tuple[str, ...] = ()) -> None:
        self._inner, self._left, self._gone = inner, left, gone
        self.bytes = 0
        self.names: list[str] = []

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        if name.endswith(self._gone or ("no such end",)):
            raise NotFoundError("gone", subject=name)
        if kind == "blob":
            if not self._left:
                raise UnreachableError("the link is down")
            self._left -= 1
            self.names.append(name)
        data, total = self._inner.read(kind, name, offset, length)
        self.bytes += len(data) if kind == "blob" else 0
        return data, total


@pytest.fixture
def site(tmp_path: Path) -> UpdateSite:
    """A device that has 1.0.0 and is to have 1.1.0, whose weights moved a little."""
    site = UpdateSite(tmp_path)
    site.release("1.0.0", models=[("fp32", ballasted())])
    site.start("1.0.0")
    site.look()
    site.release("1.1.0", models=[("fp32", ballasted(NUDGED))])
    site.start("1.1.0")
    return site


def listed(site: UpdateSite, version: str = "1.1.0") -> Deltas:
    data = site.fleet.read(site.now).read_target(releases_role(MODEL), deltas_target(MODEL, version))
    assert data is not None
    return parse_deltas(data)


def relist(site: UpdateSite, deltas: Deltas) -> None:
    """Sign another list of deltas: what a thief of the releases key can do."""
    with site.fleet.change(datetime.now(UTC), [releases_role(MODEL)]) as repository:
        repository.put_target(releases_role(MODEL), deltas_target(MODEL, deltas.version), encode(deltas))


def replace_delta(site: UpdateSite, data: bytes) -> None:
    """Sign a list whose only delta has these bytes."""
    deltas = listed(site)
    digest = hashlib.sha256(data).hexdigest()
    place = site.repository / "blobs" / digest[:2] / digest
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    pieces = [data[start : start + deltas.chunk_size] for start in range(0, len(data), deltas.chunk_size)]
    chunks = tuple(hashlib.sha256(piece).hexdigest() for piece in pieces)
    delta = msgspec.structs.replace(deltas.deltas[0], codec="zlib", size=len(data), sha256=digest, chunks=chunks)
    relist(site, msgspec.structs.replace(deltas, deltas=(delta,)))


def installed(site: UpdateSite, version: str) -> bool:
    """Return whether exactly the files of the bundle are installed, and nothing is left of getting them."""
    bundle = site.folder / f"bundle-{version}"
    folder = site.state.release(hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest())
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return (
        files == {path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()}
        and all((folder / path).read_bytes() == (bundle / path).read_bytes() for path in files)
        and not list(site.state.downloads.iterdir())
    )


def unused(messages: list[FromUpdater]) -> list[str]:
    return [message.reason for message in messages if isinstance(message, DeltaUnused)]


def test_changed_model_comes_as_a_delta(site: UpdateSite) -> None:
    carrier = Counting(site.carrier)
    messages = site.look(carrier)
    assert names(messages)[-1] == "Stored"
    assert installed(site, "1.1.0")
    (used,) = (message for message in messages if isinstance(message, DeltaUsed))
    assert used.path == "models/fp32.onnx"
    assert used.fetched < 12 * KIB
    assert used.fetched + used.spared > 400_000
    assert messages[-1] == Stored(slot="main", saved=used.spared)
    assert carrier.bytes < 20 * KIB


def test_deltas_leave_the_manifest_as_it_was(tmp_path: Path) -> None:
    with_deltas, without = UpdateSite(tmp_path / "a"), UpdateSite(tmp_path / "b")
    for site in (with_deltas, without):
        if site is with_deltas:
            site.release("1.0.0", models=[("fp32", ballasted())])
        site.release("1.1.0", models=[("fp32", ballasted(NUDGED))])
    manifests = [(site.folder / "bundle-1.1.0/manifest.json").read_bytes() for site in (with_deltas, without)]
    assert manifests[0] == manifests[1]
    assert listed(with_deltas).deltas


def test_device_without_the_base_fetches_the_file(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", models=[("fp32", ballasted())])
    site.release("1.1.0", models=[("fp32", ballasted(NUDGED))])
    site.start("1.1.0")
    messages = site.look()
    assert installed(site, "1.1.0")
    assert not any(isinstance(message, DeltaUsed | DeltaUnused) for message in messages)


def test_base_may_be_in_the_factory_bundle(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", models=[("fp32", ballasted())])
    site.release("1.1.0", models=[("fp32", ballasted(NUDGED))])
    site.start("1.1.0")
    messages = site.look(factory=str(site.folder / "bundle-1.0.0"))
    assert any(isinstance(message, DeltaUsed) for message in messages)
    assert installed(site, "1.1.0")


def test_release_before_the_last_is_a_base_too(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", models=[("fp32", ballasted())])
    site.start("1.0.0")
    site.look()
    site.release("1.1.0", models=[("fp32", ballasted(0.5))])
    site.release("1.2.0", models=[("fp32", ballasted(NUDGED))])
    site.start("1.2.0")
    assert any(isinstance(message, DeltaUsed) for message in site.look())
    assert installed(site, "1.2.0")


@pytest.mark.parametrize(
    "change", [lambda data: data[::-1], lambda data: data[: len(data) // 2], lambda _: b"", lambda data: data + b"x"]
)
def test_delta_corrupted_on_the_way_is_not_used(site: UpdateSite, change: Callable[[bytes], bytes]) -> None:
    digest = listed(site).deltas[0].sha256
    messages = site.look(TamperingCarrier(site.carrier, digest, change))
    assert unused(messages) == ["damaged"]
    assert messages[-1] == Stored(slot="main")
    assert installed(site, "1.1.0")


def test_missing_delta_is_not_used(site: UpdateSite) -> None:
    messages = site.look(Counting(site.carrier, gone=(listed(site).deltas[0].sha256,)))
    assert unused(messages) == ["not-found"]
    assert installed(site, "1.1.0")


@pytest.mark.parametrize(
    "data",
    [
        b"no delta",
        forged([Insert(length=9)], literals=b"too short"),
        forged([Insert(length=10**9)], literals=b"too long"),
        forged([Insert(length=400_341)], literals=bytes(400_341)),
        forged([], control=bytes(3 * 2**20)),
    ],
    ids=["garbage", "short", "oversized", "other bytes", "bomb"],
)
def test_signed_delta_that_makes_something_else_is_not_used(site: UpdateSite, data: bytes) -> None:
    replace_delta(site, data)
    messages = site.look()
    assert unused(messages) == ["delta"]
    assert installed(site, "1.1.0")


def test_delta_against_a_damaged_base_is_not_used(site: UpdateSite) -> None:
    (release,) = site.state.releases.iterdir()
    path = release / "models/fp32.onnx"
    data = bytearray(path.read_bytes())
    data[200_000] ^= 1
    path.write_bytes(data)
    messages = site.look()
    assert unused(messages) == ["delta"]
    assert installed(site, "1.1.0")


def test_codec_nobody_knows_is_passed_over(site: UpdateSite) -> None:
    deltas = listed(site)
    delta = msgspec.structs.replace(deltas.deltas[0], codec="brotli")
    relist(site, msgspec.structs.replace(deltas, deltas=(delta,)))
    messages = site.look()
    assert not any(isinstance(message, DeltaUsed | DeltaUnused) for message in messages)
    assert installed(site, "1.1.0")


@pytest.mark.parametrize("change", [lambda _: b"{}", lambda data: data[::-1]])
def test_tampered_list_of_deltas_is_said_and_not_used(site: UpdateSite, change: Callable[[bytes], bytes]) -> None:
    messages = site.look(TamperingCarrier(site.carrier, ".deltas.json", change))
    assert len(unused(messages)) == 1
    assert troubles(messages) == []
    assert installed(site, "1.1.0")


def test_list_that_no_depot_has_is_said_and_not_used(site: UpdateSite) -> None:
    messages = site.look(Counting(site.carrier, gone=(".deltas.json",)))
    assert unused(messages) == ["not-found"]
    assert installed(site, "1.1.0")


def test_list_for_another_manifest_is_not_used(site: UpdateSite) -> None:
    relist(site, msgspec.structs.replace(listed(site), manifest_sha256="ab" * 32))
    assert unused(site.look()) == ["malformed"]
    assert installed(site, "1.1.0")


def test_interrupted_delta_goes_on_where_it_stopped(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    site.release("1.0.0", models=[("fp32", ballasted(size=3_000_000))])
    site.start("1.0.0")
    site.look()
    site.release("1.1.0", models=[("fp32", ballasted(0.2, size=3_000_000))])
    site.start("1.1.0")
    chunks = len(listed(site).deltas[0].chunks)
    assert chunks > 4
    first = Counting(site.carrier, left=3)
    assert troubles(site.look(first)) == [("transport", "unreachable")]
    rest = Counting(site.carrier)
    messages = site.look(rest)
    assert any(isinstance(message, DeltaUsed) for message in messages)
    assert (first.names + rest.names).count(listed(site).deltas[0].sha256) == chunks
    assert installed(site, "1.1.0")


def test_delta_that_failed_is_not_fetched_again_after_an_interruption(site: UpdateSite) -> None:
    replace_delta(site, forged([Insert(length=9)], literals=b"too short"))
    first = Counting(site.carrier, left=3)
    assert troubles(site.look(first)) == [("transport", "unreachable")]
    (partial,) = site.state.downloads.iterdir()
    assert list((partial / FOLDER).glob("*.failed"))
    rest = Counting(site.carrier)
    messages = site.look(rest)
    assert unused(messages) == []
    assert listed(site).deltas[0].sha256 not in rest.names
    assert installed(site, "1.1.0")


def test_export_carries_the_deltas(site: UpdateSite, tmp_path: Path) -> None:
    from edge_agent.updater.transports.directory import DirectoryTransport
    from edge_fleet.releases.export import export

    export(site.fleet, tmp_path / "stick", MODEL, site.now, lambda _done, _total: None)
    messages = site.look(DirectoryTransport(tmp_path / "stick"))
    assert any(isinstance(message, DeltaUsed) for message in messages)
    assert installed(site, "1.1.0")
