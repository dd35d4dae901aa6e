"""The topic tree, built and parsed in one place. At most seven levels, so AWS IoT Core's limit of eight holds.

    ew/v1/<tenant>/hint                      retained: newest timestamp version (transfer.Hint)
    ew/v1/<tenant>/collector/<name>          retained "1" while a controller stores telemetry, cleared by its Last Will
    ew/v1/<tenant>/d/<device>/collector      a controller's name: it has heard the presence and stores telemetry
    ew/v1/<tenant>/d/<device>/presence       retained, Last Will (state.Presence)
    ew/v1/<tenant>/d/<device>/reported       retained (state.ReportedState)
    ew/v1/<tenant>/d/<device>/tele           telemetry windows, events and tombstones, QoS 1
    ew/v1/<tenant>/d/<device>/req            requests to a depot (transfer.Request)
    ew/v1/<tenant>/d/<device>/rsp/<nonce>    responses to one requester (transfer.Response)
    ew/v1/<tenant>/d/<device>/renew          a request for the next certificate (enrollment.CertificateRequest)
    ew/v1/<tenant>/d/<device>/certificate    its answer (enrollment.CertificateAnswer)
    ew/v1/<tenant>/enrol/<claim>/req         a request for the first certificate (enrollment.CertificateRequest)
    ew/v1/<tenant>/enrol/<claim>/rsp         its answer (enrollment.CertificateAnswer)

A device writes only below its own `d/<device>/`, so a broker's pattern ACL on the user name covers it; a claim only
below its own `enrol/<claim>/`.
"""

from __future__ import annotations

import re
from typing import Literal

from edge_contracts.codec import StrictRecord
from edge_contracts.errors import ContractError
from edge_contracts.names import NAME_PATTERN

ROOT = "ew/v1"
DEPOT_GROUP = "depot"
INGEST_GROUP = "ingest"
ENROLLMENT_GROUP = "enrolment"

DeviceTopic = Literal["presence", "reported", "tele", "req", "rsp", "renew", "certificate", "collector"]

_NAME = re.compile(NAME_PATTERN)
_NONCE = re.compile(r"^[A-Za-z0-9]{1,64}(?!\n)$")
_DEVICE_TOPIC = re.compile(
    r"^ew/v1/([^/+#]{1,64})/d/([^/+#]{1,64})/(presence|reported|tele|req|rsp|renew|certificate|collector)"
    r"(?:/([A-Za-z0-9]{1,64}))?(?!\n)$"
)
_CLAIM_TOPIC = re.compile(r"^ew/v1/([^/+#]{1,64})/enrol/([^/+#]{1,64})/req(?!\n)$")


class DeviceAddress(StrictRecord, frozen=True, kw_only=True):
    """Whose topic it is and which one; `nonce` only for responses."""

    tenant: str
    device: str
    topic: DeviceTopic
    nonce: str | None = None


def hint_topic(tenant: str) -> str:
    """Return the retained hint topic of a tenant."""
    return f"{ROOT}/{_checked(tenant, 'tenant')}/hint"


def collector_topic(tenant: str, name: str) -> str:
    """Return where a controller says that it stores telemetry; "+" for all of them.

    Devices wait for one before they hand over their spool: a broker that has lost its sessions acknowledges a message
    that nobody is subscribed to, and the message is gone (MQTT 5, section 4.3.2). A retained word proves nothing, since
    it may be that of a controller which died with the broker: it must come live, here or on the device's own topic
    `collector` as the answer to its presence."""
    return f"{ROOT}/{_checked(tenant, 'tenant')}/collector/{name if name == '+' else _checked(name, 'collector')}"


def claim_topic(tenant: str, claim: str, topic: Literal["req", "rsp"]) -> str:
    """Return where a claim asks, or is answered; "+" for all claims. Raises ContractError for what is no level."""
    level = claim if claim == "+" else _checked(claim, "claim")
    return f"{ROOT}/{_checked(tenant, 'tenant')}/enrol/{level}/{topic}"


def device_topic(tenant: str, device: str, topic: DeviceTopic, nonce: str | None = None) -> str:
    """Return a device's topic; only `rsp` takes a nonce. Raises ContractError if a name cannot be a topic level."""
    if nonce is not None and (topic != "rsp" or not _NONCE.match(nonce)):
        raise ContractError(f"{nonce[:80]!r} cannot be the nonce of {topic}", subject="nonce")
    base = f"{ROOT}/{_checked(tenant, 'tenant')}/d/{_checked(device, 'device')}/{topic}"
    return base if nonce is None else f"{base}/{nonce}"


def all_devices(tenant: str, topic: DeviceTopic) -> str:
    """Return the subscription for one topic of every device of a tenant."""
    return f"{ROOT}/{_checked(tenant, 'tenant')}/d/+/{topic}"


def shared(group: str, subscription: str) -> str:
    """Return the shared form of a subscription (MQTT 5, section 4.8.2)."""
    return f"$share/{group}/{subscription}"


def parse_device_topic(topic: str) -> DeviceAddress:
    """Parse a device topic. Raises ContractError naming the topic."""
    found = _DEVICE_TOPIC.match(topic)
    if found is None or not (_NAME.match(found[1]) and _NAME.match(found[2])):
        raise ContractError("not a device topic", subject=topic[:200])
    kind = found[3]
    if (found[4] is not None) != (kind == "rsp"):
        raise ContractError("only responses carry a nonce, and they must", subject=topic[:200])
    return DeviceAddress(tenant=found[1], device=found[2], topic=kind, nonce=found[4])  # type: ignore[arg-type]


def parse_claim_topic(topic: str) -> str | None:
    """Return the claim that asks on this topic, or None if it is no claim's."""
    found = _CLAIM_TOPIC.match(topic)
    return found[2] if found is not None and _NAME.match(found[1]) and _NAME.match(found[2]) else None


def _checked(name: str, what: str) -> str:
    if not _NAME.match(name):
        raise ContractError(f"{name[:80]!r} cannot be a topic level", subject=what)
    return name
