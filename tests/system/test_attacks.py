"""Attacks through a hostile depot or a stolen key. Each is refused for its own reason, and inference goes on."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.makers import bundles
from support.makers.forged_metadata import Forger
from support.sites.fleet_site import CHANNEL, MODEL, Site

from edge_contracts.channel import Channel, ChannelRelease, channel_target, manifest_target
from edge_contracts.codec import encode
from edge_contracts.limits import MAX_MANIFEST_BYTES
from edge_contracts.manifest import parse_manifest
from edge_fleet.rollouts.rollout import read_channel
from edge_fleet.signing.workspace import FleetWorkspace
from edgewright.demo.stage import wait_for

pytestmark = pytest.mark.timeout(120)


def refused(site: Site, repository: Path, reasons: set[str]) -> None:
    """Serve an attacker's repository until the device refuses for one of `reasons`; 1.0.0 must go on answering."""
    site.serve_only(repository)
    site.wait_for_refusal(reasons)
    site.serves("1.0.0")
    slot = site.slot()
    assert slot["serving"]["version"] == "1.0.0"


def offered_but_withheld(site: Site, **options: Any) -> Forger:
    """Publish and roll out 1.1.0 while no depot answers, and return a copy of the repository to tamper with."""
    site.stop("depot")
    site.publish("1.1.0", **options)
    site.roll_out("1.1.0")
    return Forger(site, site.folder / "forged")


def channel_for(site: Site, version: str, manifest_sha256: str) -> bytes:
    """Return a channel document that wants a release of the attacker's choice."""
    channel = read_channel(FleetWorkspace(site.fleet).read(datetime.now(UTC)), CHANNEL)
    assert isinstance(channel, Channel)
    wish = ChannelRelease(version=version, manifest_sha256=manifest_sha256)
    return encode(
        msgspec.structs.replace(channel, serial=channel.serial + 1, candidate=wish, rollout="forged", blocked=())
    )


def test_tampered_manifest_is_refused(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    for manifest in (forged.folder / "targets" / manifest_target(MODEL, "1.1.0")).parent.iterdir():
        manifest.write_bytes(manifest.read_bytes().replace(b'"min_score":0.9', b'"min_score":0.1'))
    refused(serving, forged.folder, {"hash-mismatch"})


def test_tampered_chunk_is_never_installed(serving: Site) -> None:
    forged = offered_but_withheld(serving, padding=200_000)
    manifest = parse_manifest((serving.folder / "bundle-1.1.0" / "manifest.json").read_bytes())
    digest = manifest.file("padding.bin").sha256
    blob = forged.folder / "blobs" / digest[:2] / digest
    data = bytearray(blob.read_bytes())
    data[100_000] ^= 1
    blob.write_bytes(data)
    serving.serve_only(forged.folder)
    wait_for("the damage is reported", lambda: serving.slot()["reason"] == "damaged")
    assert serving.slot()["serving"]["version"] == "1.0.0"
    serving.serves("1.0.0")
    serving.stop("attacker")
    serving.start_depot()
    serving.wait_for_state("committed", "1.1.0")


def test_replayed_old_repository_is_refused(serving: Site) -> None:
    old = serving.folder / "old"
    shutil.copytree(serving.repository, old)
    serving.publish("1.1.0")
    serving.roll_out("1.1.0")
    serving.wait_for_state("committed", "1.1.0")
    serving.serve_only(old)
    serving.wait_for_refusal({"rollback"})
    serving.serves("1.1.0")


def test_frozen_repository_is_noticed_and_starts_nothing(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    forged.publish(expires=datetime.now(UTC) - timedelta(minutes=1))
    refused(serving, forged.folder, {"expired"})


def test_channel_signed_by_the_releases_key_is_refused(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    document = channel_for(serving, "1.1.0", "0" * 64)
    forged.list_target("rollouts", channel_target(CHANNEL), document, key="releases")
    forged.publish()
    refused(serving, forged.folder, {"signature"})


def test_release_signed_by_the_rollouts_key_is_refused(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    manifest = bundles.make_bundle(serving.folder / "evil", name=MODEL, version="9.9.9")
    data = (manifest.folder / "manifest.json").read_bytes()
    forged.list_target("rollouts", manifest_target(MODEL, "9.9.9"), data, key="rollouts")
    document = channel_for(serving, "9.9.9", sha256(data).hexdigest())
    forged.list_target("rollouts", channel_target(CHANNEL), document, key="rollouts")
    forged.publish()
    refused(serving, forged.folder, {"not-found"})


def test_stolen_timestamp_and_snapshot_keys_can_freeze_and_not_change_what_runs(serving: Site) -> None:
    frozen = Forger(serving, serving.folder / "frozen")
    frozen.publish(expires=datetime.now(UTC) + timedelta(days=3650))
    serving.publish("1.1.0")
    serving.roll_out("1.1.0")
    serving.serve_only(frozen.folder)
    version = frozen.read("timestamp").signed.version
    wait_for("it is believed", lambda: serving.status()["trusted"].get("timestamp") == version)
    serving.serves("1.0.0")
    serving.stop("attacker")

    forged = Forger(serving, serving.folder / "forged")
    document = channel_for(serving, "1.1.0", "0" * 64)
    forged.list_target("rollouts", channel_target(CHANNEL), document, key="timestamp")
    forged.publish()
    forged.publish()  # above the version it froze the device at
    serving.start_depot(forged.folder, "forger")
    serving.wait_for_refusal({"signature"})
    serving.serves("1.0.0")


def fold_bomb() -> bytes:
    """Return a model of a few hundred bytes that an optimizing loader unfolds into 400 GB before the first request."""
    shape = numpy_helper.from_array(np.array([10**11, 1], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ConstantOfShape", ["shape"], ["bomb"]),
        helper.make_node("ReduceSum", ["bomb"], ["zero"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["good"]),
        helper.make_node("Add", ["good", "zero"], ["y"]),
    ]
    model = onnx.load_from_string(bundles.linear_model())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    data: bytes = model.SerializeToString()
    return data


def huge_claim() -> bytes:
    """Return a model whose weights claim a quadrillion numbers and hold twelve."""
    model = onnx.load_from_string(bundles.linear_model())
    model.graph.initializer[0].dims[:] = [2**25, 2**25]
    data: bytes = model.SerializeToString()
    return data


def outside_data() -> bytes:
    """Return a model whose weights are said to be in a file of the system."""
    model = onnx.load_model_from_string(bundles.linear_model())
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../../etc/passwd")
    data: bytes = model.SerializeToString()
    return data


def nested(depth: int) -> bytes:
    """Return a model with branches within branches, deeper than protobuf's own classes would write."""
    branch = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, branch) + b"\xa0\x01\x05"  # of type GRAPH
        branch = field(1, field(4, b"If") + field(5, attribute))
    return bundles.linear_model() + field(7, branch)


def field(number: int, data: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    size, prefix = len(data), bytes([number << 3 | 2])
    while size >= 0x80:
        prefix, size = prefix + bytes([size & 0x7F | 0x80]), size >> 7
    return prefix + bytes([size]) + data


def foreign_operator() -> bytes:
    """Return a model with an operator out of a library that its author would like the device to load."""
    model = onnx.load_model_from_string(bundles.linear_model())
    model.graph.node[0].op_type, model.graph.node[0].domain = "Backdoor", "author.library"
    model.opset_import.append(helper.make_opsetid("author.library", 1))
    data: bytes = model.SerializeToString()
    return data


HOSTILE_MODELS = {
    "garbage": bundles.crash_model(),
    "cut off": bundles.linear_model()[:-40],
    "huge claim": huge_claim(),
    "fold bomb": fold_bomb(),
    "external data": outside_data(),
    "deep nesting": nested(200),
    "foreign operator": foreign_operator(),
}


@pytest.mark.parametrize("model", HOSTILE_MODELS.values(), ids=HOSTILE_MODELS.keys())
def test_model_that_attacks_the_parser_dies_in_its_trial(serving: Site, model: bytes) -> None:
    workers = serving.slot()["workers"]
    serving.publish("1.1.0", models=[("fp32", model)])
    serving.roll_out("1.1.0")
    slot = serving.wait_for_state("rejected", "1.1.0")
    assert slot["reason"].startswith("trial-")
    assert slot["workers"] == workers
    serving.serves("1.0.0")


def test_oversized_metadata_is_refused(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    timestamp = forged.folder / "metadata" / "timestamp.json"
    timestamp.write_bytes(timestamp.read_bytes() + b" " * 5_000_000)
    refused(serving, forged.folder, {"too-large"})


def test_oversized_manifest_is_refused(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    data = (serving.folder / "bundle-1.1.0" / "manifest.json").read_bytes()
    data += b" " * (MAX_MANIFEST_BYTES + 1 - len(data))
    refused_release(serving, forged, data, {"too-large"})


def test_path_traversal_in_a_signed_bundle_is_refused(serving: Site) -> None:
    forged = offered_but_withheld(serving, padding=1000)
    manifest = json.loads((serving.folder / "bundle-1.1.0" / "manifest.json").read_bytes())
    entry = next(entry for entry in manifest["files"] if entry["path"] == "padding.bin")
    entry["path"] = "../../../escaped.bin"
    refused_release(serving, forged, json.dumps(manifest).encode(), {"malformed"})
    assert not list(serving.folder.rglob("escaped.bin"))


def test_malformed_signed_channel_is_refused(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    forged.list_target("rollouts", channel_target(CHANNEL), b'{"channel": 7}', key="rollouts")
    forged.publish()
    refused(serving, forged.folder, {"malformed"})


def refused_release(site: Site, forged: Forger, manifest: bytes, reasons: set[str]) -> None:
    """Let a malicious release signer sign `manifest` as 1.2.0 and roll it out."""
    role = f"releases-{MODEL}"
    manifest = manifest.replace(b'"version":"1.1.0"', b'"version":"1.2.0"')
    forged.list_target(role, manifest_target(MODEL, "1.2.0"), manifest, key="releases")
    document = channel_for(site, "1.2.0", sha256(manifest).hexdigest())
    forged.list_target("rollouts", channel_target(CHANNEL), document, key="rollouts")
    forged.publish()
    refused(site, forged.folder, reasons)


def test_honest_release_installs_after_an_attack(serving: Site) -> None:
    forged = offered_but_withheld(serving)
    timestamp = forged.folder / "metadata" / "timestamp.json"
    timestamp.write_bytes(b"not metadata")
    refused(serving, forged.folder, {"malformed", "signature"})
    serving.stop("attacker")
    serving.start_depot()
    serving.wait_for_state("committed", "1.1.0")
    serving.serves("1.1.0")
