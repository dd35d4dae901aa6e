"""Surfaces of deltas and of requests for certificates. See `fuzz_surfaces`."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from campaigns.fuzzing.forms import JSON, RAW, Form, blob_of
from campaigns.fuzzing.surfaces import Run, Surface
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from support.makers import fleets
from support.makers.contract_examples import EXAMPLES
from support.makers.deltas import deflated, forged, joined

from edge_agent.errors import DeltaError
from edge_agent.updater.delta_apply import apply_delta
from edge_contracts.codec import encode
from edge_contracts.delta import HEADER, Copy, Difference, Insert, parse_header
from edge_contracts.enrollment import CertificateRequest, parse_certificate_answer, signed_part
from edge_contracts.topics import claim_topic
from edge_fleet.database.certificates import CertificateStore
from edge_fleet.identity.claims import ClaimOrder, found_authority, make_claim
from edge_fleet.identity.enrollment import Enrollment

BASE = bytes(range(256)) * 16
SIZE = 600
NOW = datetime(2026, 11, 22, 6, tzinfo=UTC)


def _delta(codec: str) -> Surface:
    def start(folder: Path) -> Run:
        base, delta = folder / "base", folder / "delta"
        base.write_bytes(BASE)

        def run(data: bytes) -> None:
            delta.write_bytes(data)
            made = 0
            for piece in apply_delta(base, delta, codec, SIZE):
                assert len(piece) <= 2**20, "a piece over the limit"
                made += len(piece)
                assert made <= SIZE, "more than was signed"

        return run

    def seeds() -> list[bytes]:
        operations = [Copy(length=100, offset=8), Difference(length=400, offset=0, lane=4), Insert(length=100)]
        sections = {"masks": b"\xff" * 50, "values": bytes(400), "literals": b"ab" * 50}
        return [forged(operations, codec=codec, **sections), forged([Copy(length=SIZE, offset=0)], codec=codec)]

    form = Form(take=_take_delta, make=_make_delta) if codec == "zlib" else RAW
    return Surface(name=f"delta-{codec}", open=start, seeds=seeds, refusals=(DeltaError,), form=form)


def _take_delta(data: bytes) -> dict[str, Any]:
    control, *sections = (
        zlib.decompress(data[place.start : place.stop]) for place in parse_header(data[: HEADER.size], len(data))
    )
    return {"control": msgspec.msgpack.decode(control), "sections": sections}


def _make_delta(tree: Any) -> bytes:
    control = msgspec.msgpack.encode(tree["control"])
    return joined([deflated(blob_of(section)) for section in (control, *tree["sections"])])


def _enrollment(folder: Path) -> Run:
    """The bytes are a request as it is, and once more with a true signature, which reaches what lies behind it."""
    fleet = fleets.make_fleet(folder)
    store = CertificateStore(fleet.store_url)
    desk = Enrollment("default", found_authority(fleet, NOW), store)
    claim = make_claim(fleet, store, ClaimOrder(device="dev-1", host="b", port=1), timedelta(days=7), NOW)
    key = load_pem_private_key(claim.key.encode(), password=None)
    certificate = x509.load_pem_x509_certificate(claim.certificate.encode()).public_bytes(Encoding.DER)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    topic = claim_topic("default", claim.claim, "req")

    def run(data: bytes) -> None:
        for payload in (data, _signed(data, key, certificate)):
            answer = None if payload is None else desk.answer(topic, payload, NOW)
            if answer is not None:
                parse_certificate_answer(answer[1])

    return run


def _signed(data: bytes, key: ec.EllipticCurvePrivateKey, certificate: bytes) -> bytes | None:
    try:
        asked = msgspec.json.decode(data, type=CertificateRequest)
        signature = key.sign(signed_part(asked.nonce, asked.csr), ec.ECDSA(hashes.SHA256()))
    except (msgspec.MsgspecError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        return None
    return encode(msgspec.structs.replace(asked, certificate=certificate, signature=signature))


def _requests() -> list[bytes]:
    draft = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = draft.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
    asked = EXAMPLES["certificate-request"]
    return [encode(asked), encode(msgspec.structs.replace(asked, csr=csr))]


EXCHANGE = (
    _delta("zlib"),
    _delta("zstd"),
    Surface(name="enrolment", open=_enrollment, seeds=_requests, refusals=(), form=JSON),
)
