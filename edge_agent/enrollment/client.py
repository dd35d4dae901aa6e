"""Getting a certificate over the broker: the first for a claim, the next for the one in use.

The private key is made here, kept before it is used, and never sent. Whatever is lost on the way, asking again with the
same key gets the same certificate. Run by `edgewright agent enroll` and by `edge_agent.enrollment`; not in the
supervisor.
"""

from __future__ import annotations

import queue
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.enrollment.certificates import CertificateSubject, accept, make_request, new_key
from edge_agent.errors import CertificateError, ConfigError, UnreachableError
from edge_agent.identity.files import SECRET, IdentityFolder
from edge_agent.identity.validity import Enrolled
from edge_agent.mqtt.client import MqttLink
from edge_agent.storage.durable import write_durably
from edge_contracts.codec import encode
from edge_contracts.enrollment import CertificateRequest, Claim, Refusal, parse_certificate_answer
from edge_contracts.errors import ContractError
from edge_contracts.topics import claim_topic, device_topic
from edge_io.mqtt.words import Connected, Disconnected, LinkEvent, MessageReceived

AGAIN_S = 5.0
"""How long an answer may take until the request is sent again."""

NEXT_STEP: dict[Refusal, str] = {
    "malformed": "update the agent or the enrollment service: their versions are incompatible",
    "unknown": "the claim or certificate belongs to another fleet: create a claim with `edgewright fleet enroll`",
    "expired": "create a new claim with `edgewright fleet enroll` and run `edgewright agent enroll`",
    "used": "this claim was used with another key; if that was not this device, run `edgewright fleet identity revoke`",
    "revoked": "this device was revoked by an operator; create a new claim with `edgewright fleet enroll`",
    "too-often": "this certificate was renewed too often: create a claim with `edgewright fleet enroll`",
}


@dataclass(frozen=True)
class EnrollmentClient:
    """Where to ask and where the answer comes."""

    broker: BrokerConfig
    asks: str
    answers: str


def redeem_claim(claim: Claim, folder: IdentityFolder, broker: BrokerConfig, timeout_s: float) -> Enrolled:
    """Redeem a claim and put the new identity into use; `broker` says which MQTT to speak, the claim where. A claim
    that was redeemed here before changes nothing.

    Raises CertificateError with the reason, UnreachableError, StateError.
    """
    current = folder.current()
    if current is not None and current.claim == claim.claim:
        return current
    wanted = CertificateSubject(
        claim=claim.claim,
        device=claim.device,
        tenant=claim.tenant,
        key=_kept_key(folder),
        ca=claim.ca.encode(),
        issuer=claim.issuer.encode(),
    )
    request = make_request(wanted.key, claim.certificate.encode(), claim.key.encode())
    topics = (claim_topic(claim.tenant, claim.claim, "req"), claim_topic(claim.tenant, claim.claim, "rsp"))
    with tempfile.TemporaryDirectory(prefix="edgewright-claim-") as scratch:
        settings = _as_claim(claim, Path(scratch), broker)
        enrolled, papers = accept(ask(EnrollmentClient(settings, *topics), request, timeout_s), wanted)
    with folder.hold():
        folder.adopt(enrolled, papers)
    return enrolled


def renew(folder: IdentityFolder, broker: BrokerConfig, timeout_s: float) -> Enrolled:
    """Get the successor of the identity in use, with a new key, put it into use and return it; or return the one that
    was put into use meanwhile.

    Raises CertificateError with the reason, UnreachableError, StateError, ConfigError without an identity.
    """
    current = folder.current()
    if current is None:
        raise ConfigError("this device is not enrolled", subject="identity", hint="edgewright agent enroll")
    files = folder.files(current)
    wanted = CertificateSubject(
        claim=current.claim,
        device=current.device,
        tenant=current.tenant,
        key=_kept_key(folder),
        ca=files.ca.read_bytes(),
        issuer=files.issuer.read_bytes(),
    )
    request = make_request(wanted.key, files.certificate.read_bytes(), files.key.read_bytes())
    asks = device_topic(current.tenant, current.device, "renew")
    answers = device_topic(current.tenant, current.device, "certificate")
    enrolled, papers = accept(ask(EnrollmentClient(broker, asks, answers), request, timeout_s), wanted)
    with folder.hold():
        meanwhile = folder.current()
        if meanwhile is not None and meanwhile != current:
            return meanwhile
        folder.adopt(enrolled, papers)
    return enrolled


def _kept_key(folder: IdentityFolder) -> bytes:
    """Return the key that waits for a certificate, or a new one that does from now on."""
    with folder.hold():
        key = folder.pending_key()
        if key is None:
            key = new_key()
            folder.keep_key(key)
    return key


def _as_claim(claim: Claim, scratch: Path, broker: BrokerConfig) -> BrokerConfig:
    """Return how to connect as the claim; TLS takes its files from a folder of their own."""
    for name in ("ca", "certificate", "key"):
        write_durably(scratch / name, getattr(claim, name).encode(), mode=SECRET)
    return BrokerConfig(
        host=claim.host,
        port=claim.port,
        tls=True,
        ca_file=str(scratch / "ca"),
        certificate_file=str(scratch / "certificate"),
        key_file=str(scratch / "key"),
        protocol=broker.protocol,
    )


def ask(desk: EnrollmentClient, request: CertificateRequest, timeout_s: float) -> bytes:
    """Return the certificate (DER) the service answers with. Raises CertificateError, UnreachableError."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = MqttLink(desk.broker, f"ew-certificate-{secrets.token_hex(8)}", ((desk.answers, 1),), events.put)
    link.start()
    try:
        return _await(link, events, desk, request, timeout_s)
    finally:
        link.stop()


def _await(
    link: MqttLink,
    events: queue.SimpleQueue[LinkEvent],
    desk: EnrollmentClient,
    request: CertificateRequest,
    timeout_s: float,
) -> bytes:
    """Send the request at every connection and whenever no answer comes; believe an answer with its nonce."""
    ends = time.monotonic() + timeout_s
    trouble = "no connection to the broker"
    while (left := ends - time.monotonic()) > 0:
        try:
            event: LinkEvent | None = events.get(timeout=min(left, AGAIN_S))
        except queue.Empty:
            event = Connected() if link.connected else None
        if isinstance(event, Connected):
            link.publish(desk.asks, encode(request), qos=1)
            trouble = "no reply from the enrollment service"
        elif isinstance(event, Disconnected):
            trouble = event.reason
        elif isinstance(event, MessageReceived):
            certificate = _certificate(event.payload, request.nonce)
            if certificate is not None:
                return certificate
    raise UnreachableError(f"{trouble}, in {timeout_s:g} s", subject=f"{desk.broker.host}:{desk.broker.port}")


def _certificate(payload: bytes, nonce: str) -> bytes | None:
    try:
        answer = parse_certificate_answer(payload)
    except ContractError:
        return None
    if answer.nonce != nonce:
        return None
    if answer.refused is not None:
        raise CertificateError(f"refused: {answer.refused}", hint=NEXT_STEP[answer.refused], refusal=answer.refused)
    return answer.certificate
