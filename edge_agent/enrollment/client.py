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
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.enrollment.certificates import CertificateSubject, accept, make_request, new_key
from edge_agent.errors import CertificateError, ConfigError, UnreachableError
from edge_agent.identity.files import SECRET, IdentityFiles, IdentityFolder
from edge_agent.identity.validity import Enrolled
from edge_agent.mqtt.client import MqttLink
from edge_agent.storage.durable import write_durably
from edge_contracts.codec import encode
from edge_contracts.enrollment import CertificateRequest, Claim, Refusal, parse_certificate_answer
from edge_contracts.errors import ContractError
from edge_contracts.topics import claim_topic, device_topic
from edge_io.addresses import address_text
from edge_io.mqtt.words import Acknowledged, Connected, Disconnected, LinkEvent, MessageReceived, Refused

AGAIN_S = 5.0
"""How long an answer may take until the request is sent again."""

CHECK_S = 15.0
"""How long the service is asked whether a claim that was redeemed here before still holds."""

_ALERTS: dict[str, Refusal] = {"alert certificate expired": "expired", "alert certificate revoked": "revoked"}
"""What OpenSSL calls the alerts of RFC 8446, section 6.2."""

NO_REPLY = "no reply from the enrollment service"

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
    """Where to ask and where the answer comes. `heeds_alerts`: a broker that calls the certificate expired or revoked
    ends it; otherwise it is asked again, as the broker may be behind."""

    broker: BrokerConfig
    asks: str
    answers: str
    heeds_alerts: bool = False


@dataclass(frozen=True)
class RedeemedClaim:
    """The identity that is in use. `doubt`: why the service was not asked whether a claim redeemed before still holds,
    "" if it was."""

    enrolled: Enrolled
    doubt: str = ""


def redeem_claim(
    claim: Claim, folder: IdentityFolder, broker: BrokerConfig, timeout_s: float, now: float
) -> RedeemedClaim:
    """Redeem a claim and put the new identity into use; `broker` says which MQTT to speak, the claim where. `now` is
    the device's clock, in seconds since 1970.

    A claim that was redeemed here before changes nothing: then the service is asked whether it still holds. Raises
    CertificateError with the reason, UnreachableError, StateError.
    """
    current = folder.current()
    if current is not None and current.claim == claim.claim:
        return RedeemedClaim(current, _doubt(claim, folder.files(current), broker, min(timeout_s, CHECK_S), now))
    _check_term(claim, now)
    key = _kept_key(folder)
    enrolled, papers = accept(_ask_as_claim(claim, key, broker, timeout_s), _subject(claim, key))
    with folder.hold():
        folder.adopt(enrolled, papers)
    return RedeemedClaim(enrolled)


def _check_term(claim: Claim, now: float) -> None:
    """Raise CertificateError for a claim that is over by its own words, before anybody is asked."""
    if datetime.fromisoformat(claim.expires).timestamp() > now:
        return
    clock = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    hint = f"{NEXT_STEP['expired']}; if this device's clock ({clock}) is wrong, set it first"
    raise CertificateError(f"refused: expired; the claim was good until {claim.expires}", hint=hint, refusal="expired")


def _doubt(claim: Claim, files: IdentityFiles, broker: BrokerConfig, timeout_s: float, now: float) -> str:
    """Return why it is not known whether an identity still holds; "" if the service says so. Raises CertificateError
    if it says that the device was revoked."""
    try:
        _check_term(claim, now)
        _ask_as_claim(claim, files.key.read_bytes(), broker, timeout_s)
    except CertificateError as error:
        if error.refusal in ("used", "too-often"):  # it was renewed since, with another key
            return ""
        if error.refusal != "expired":
            raise
        return "the claim itself is over"
    except UnreachableError as error:
        return str(error)
    return ""


def _subject(claim: Claim, key: bytes) -> CertificateSubject:
    return CertificateSubject(
        claim=claim.claim,
        device=claim.device,
        tenant=claim.tenant,
        key=key,
        ca=claim.ca.encode(),
        issuer=claim.issuer.encode(),
    )


def _ask_as_claim(claim: Claim, key: bytes, broker: BrokerConfig, timeout_s: float) -> bytes:
    request = make_request(key, claim.certificate.encode(), claim.key.encode())
    topics = (claim_topic(claim.tenant, claim.claim, "req"), claim_topic(claim.tenant, claim.claim, "rsp"))
    with tempfile.TemporaryDirectory(prefix="edgewright-claim-") as scratch:
        client = EnrollmentClient(_as_claim(claim, Path(scratch), broker), *topics, heeds_alerts=True)
        return ask(client, request, timeout_s)


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
            event = events.get(timeout=min(left, AGAIN_S))
        except queue.Empty:
            link.publish(desk.asks, encode(request), qos=1)
            continue
        if isinstance(event, Connected):
            link.publish(desk.asks, encode(request), qos=1)
            refused = ", ".join(f"{one.topic}: {one.reason}" for one in event.refused)
            trouble = f"the broker refuses the subscription to {refused}" if refused else NO_REPLY
        elif isinstance(event, Refused):
            trouble = f"the broker refuses the request on {event.topic}: {event.reason}"
        elif isinstance(event, Acknowledged) and event.unheard:
            trouble = f"{NO_REPLY}, none is connected to the broker"
        elif isinstance(event, Disconnected):
            trouble = event.reason
            if desk.heeds_alerts:
                _heed(event.reason)
        elif isinstance(event, MessageReceived):
            certificate = _certificate(event.payload, request.nonce)
            if certificate is not None:
                return certificate
    where = address_text(desk.broker.host, desk.broker.port)
    raise UnreachableError(f"{trouble}, in {timeout_s:g} s", subject=where, hint=_hint(trouble))


def _heed(reason: str) -> None:
    """Raise CertificateError if the broker's alert says why it takes no certificate of this claim."""
    said = reason.lower().replace("_", " ")
    for alert, refusal in _ALERTS.items():
        if alert in said:
            clock = ", or the broker's clock is wrong" if refusal == "expired" else ""
            text = f"refused: {refusal}; the broker says that the claim's certificate is {refusal}"
            raise CertificateError(text, hint=NEXT_STEP[refusal] + clock, refusal=refusal)


def _hint(trouble: str) -> str | None:
    if "verify failed" in trouble.lower().replace("_", " "):
        return "is this broker the one that the claim names, and the clock of this device right?"
    return None


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
