"""The doctor's checks of whom the device talks to: brokers, depot, mirror, and its own agent and slots."""

from __future__ import annotations

import contextlib
import queue
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_agent.cli.doctor.finding import Finding, Target, failure, ok
from edge_agent.cli.doctor.timestamp_check import judge_timestamp
from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import NotFoundError
from edge_agent.identity.files import IdentityFolder
from edge_agent.identity.validity import ENROL_HINT
from edge_agent.ipc.control import ControlRequest, ask_agent
from edge_agent.ipc.status import AgentStatus
from edge_agent.mqtt.client import MqttLink
from edge_agent.storage.durable import StateError
from edge_agent.supervisor.slots.listen_socket import ListenSocket
from edge_agent.telemetry.uplink import uplink_topics
from edge_agent.updater.transports.http import HttpTransport
from edge_agent.updater.transports.mqtt import MqttTransport
from edge_contracts.errors import EdgewrightError
from edge_contracts.limits import MAX_CHUNK_BYTES
from edge_io.addresses import address_text
from edge_io.mqtt.words import Connected, Disconnected, LinkEvent

SMALL_PACKET_BYTES = 16_000
"""Windows of telemetry with the histograms of a model with many inputs are no longer."""

BROKER_S = 12.0
"""How long the broker may take to accept a connection, and a depot to answer one request, in seconds."""


def _broker(patient: Target) -> Iterable[Finding]:
    broker, device = patient.config.broker, patient.config.device
    if broker is None:
        yield Finding(check="broker", verdict="skipped", text="none configured: this device works offline")
        return
    yield from _accepts("broker", broker, patient, uplink_topics(device.tenant, device.id))


def _data_broker(patient: Target) -> Iterable[Finding]:
    config = patient.config
    topics = tuple(slot.mqtt.input for slot in config.slots if slot.mqtt is not None)
    if config.home_assistant is not None:
        topics += (f"{config.home_assistant.prefix}/status",)
    if config.data_broker is not None and (topics or config.data.broker is not None):
        yield from _accepts("data broker", config.data_broker, patient, topics)


def _accepts(check: str, broker: BrokerConfig, patient: Target, topics: tuple[str, ...]) -> Iterable[Finding]:
    """Connect and subscribe as the agent does; what arrives is not looked at."""
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    subscriptions = tuple((topic, 1) for topic in topics)
    link = MqttLink(broker, f"ew-{patient.config.device.id}-doctor", subscriptions, events.put)
    where = f"{address_text(broker.host, broker.port)}{' with TLS' if broker.tls else ''}"
    link.start()
    try:
        event = _until(events, BROKER_S)
    finally:
        link.stop()
    if isinstance(event, Connected):
        yield ok(check, f"{where} accepted this device")
        yield from _granted(check, event)
        return
    reason = event.reason if isinstance(event, Disconnected) else f"no answer in {BROKER_S:g} s"
    fix = broker_fix(reason, tls=broker.tls, enrolled=not _lacks_identity(broker))
    yield failure(check, f"{where}: {reason}", fix)


def _granted(check: str, event: Connected) -> Iterable[Finding]:
    """Name what the broker says it does not do for this device."""
    for one in event.refused:
        fix = f"let this device read {one.topic} in the broker's access rules"
        yield failure(f"{check} rights", f"the broker refuses the subscription to {one.topic}: {one.reason}", fix)
    limits = event.limits
    lacks = [] if limits.retain else ["it retains no messages: the fleet does not know a device that is away"]
    lacks += ["it takes QoS 0 only: what gets lost on the way is lost"] if limits.max_qos == 0 else []
    if limits.max_packet_bytes is not None and limits.max_packet_bytes < SMALL_PACKET_BYTES:
        lacks.append(f"it takes {limits.max_packet_bytes} bytes at most: telemetry is shortened")
    for lack in lacks:
        yield Finding(check=f"{check} limits", verdict="warning", text=lack, fix="raise the broker's limit")


def _lacks_identity(broker: BrokerConfig) -> bool:
    """Return whether the device has nothing to show to this broker: then whatever it refuses, it refuses for that."""
    if not broker.tls or broker.certificate_file is not None or broker.username is not None:
        return False
    with contextlib.suppress(StateError):
        return IdentityFolder(Path(broker.identity or "")).current() is None
    return False


def _until(events: queue.SimpleQueue[LinkEvent], patience_s: float) -> LinkEvent | None:
    """Return the first event that says how it is; a broker that knows only MQTT 3.1.1 refuses the first attempt."""
    ends = time.monotonic() + patience_s
    last: LinkEvent | None = None
    while (left := ends - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left)
        except queue.Empty:
            break
        if isinstance(event, Connected):
            return event
        if isinstance(event, Disconnected):
            if last is not None or "no connection" in event.reason:
                return event
            last = event
    return last


def broker_fix(reason: str, *, tls: bool, enrolled: bool = True) -> str:
    """Return what to do about a broker that could not be used for `reason`. A device that is not `enrolled` has neither
    a certificate nor the broker's CA; what keeps it from reaching the broker at all is another matter."""
    if not enrolled and ("TLS" in reason or "SSL" in reason or "accept" in reason):
        return ENROL_HINT
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return "ca_file must contain the CA of the broker's certificate, and the clock must be right"
    if "refused" in reason.lower() and "connection" in reason.lower() and "accept" not in reason:
        return "check host, port and firewall, and that the broker is running"
    if "accept" in reason:
        what = "the certificate (revoked? expired?)" if tls else "username and password_file"
        return f"the broker refused the connection: check {what} and the broker's log"
    return "check host, port, cable or wireless network"


def _depot(patient: Target) -> Iterable[Finding]:
    broker, device = patient.config.broker, patient.config.device
    if broker is None or patient.config.trust is None:
        return
    if _lacks_identity(broker):
        yield Finding(check="depot", verdict="skipped", text="not asked: this device is not enrolled")
        return
    carrier = MqttTransport(broker, device.tenant, device.id, timeout_s=BROKER_S, patience_s=0.0)
    try:
        data, _ = carrier.read("metadata", "timestamp.json", 0, MAX_CHUNK_BYTES)
        yield judge_timestamp("depot", "the depot", data, patient.now)
    except NotFoundError:
        yield failure(
            "depot",
            "answered without metadata",
            "run `edgewright fleet init`, then `edgewright fleet depot`, on the fleet host",
        )
    except EdgewrightError as error:
        fix = "run `edgewright fleet depot`; if it is running, check that the broker allows this tenant and device ID"
        yield failure("depot", str(error), fix)
    finally:
        carrier.close()


def _mirror(patient: Target) -> Iterable[Finding]:
    mirror = patient.config.updates.http
    if mirror is None:
        return
    try:
        data, _ = HttpTransport(mirror, timeout_s=BROKER_S).read("metadata", "timestamp.json", 0, MAX_CHUNK_BYTES)
        yield judge_timestamp("mirror", mirror, data, patient.now)
    except EdgewrightError as error:
        fix = "`http` of [updates] must be the URL of the folder with metadata/, targets/ and blobs/"
        yield Finding(check="mirror", verdict="warning", text=str(error), fix=fix)


def _agent(patient: Target) -> Iterable[Finding]:
    reply = (
        ask_agent(patient.state, ControlRequest(ask="status"), timeout_s=10.0) if patient.state.root.is_dir() else None
    )
    if reply is None:
        fix = "sudo systemctl start edgewright-agent"
        yield Finding(check="agent", verdict="warning", text="not running", fix=fix)
        yield from _addresses(patient)
        return
    yield ok("agent", f"running as process {reply.status.pid}, level {reply.status.level}")
    yield from _connections(reply.status)
    yield from _silent_inputs(patient, reply.status)
    for slot in reply.status.slots:
        name = f"slot {slot.slot}"
        if slot.http is None or not _ready(slot.http):
            fix = "see `edgewright agent status` for what it waits for, and the log for why a worker exited"
            yield failure(name, f"http://{slot.http} is not ready", fix)
        else:
            yield ok(name, f"http://{slot.http} answers, served by {slot.served_by}")


def _addresses(patient: Target) -> Iterable[Finding]:
    """Without an agent: whether each slot's address could be listened on."""
    for slot in patient.config.slots:
        address = ListenSocket(slot)
        try:
            if address.bind():
                yield ok(f"slot {slot.name}", f"{slot.http} can be listened on")
            else:
                yield failure(f"slot {slot.name}", address.error, "free that address, or set another one as `http`")
        finally:
            address.close()


def _connections(status: AgentStatus) -> Iterable[Finding]:
    """Name what the running agent hears from its brokers while it is connected; the rest is found by connecting."""
    links = (
        ("agent's broker", status.broker_connected, status.broker_trouble),
        ("agent's data broker", status.data_broker_connected, status.data_broker_trouble),
    )
    for check, connected, trouble in links:
        fix = "docs/how-to/broker.md: rights are in the broker's access rules, reasons in its log"
        if connected and trouble:
            yield failure(check, trouble, fix)
        elif trouble:
            yield Finding(check=check, verdict="warning", text=f"not connected: {trouble}", fix=fix)


def _silent_inputs(patient: Target, status: AgentStatus) -> Iterable[Finding]:
    """Name inputs on which nothing ever came: a broker may grant a subscription that never brings anything."""
    received = {slot.slot: slot.counters.get("mqtt_received", 0) for slot in status.slots}
    for slot in patient.config.slots:
        if slot.mqtt is not None and status.data_broker_connected and not received.get(slot.name):
            text = f"nothing has come on {slot.mqtt.input} since the agent started"
            fix = "check that something is published there, and that this device may read it (brokers need not say)"
            yield Finding(check=f"slot {slot.name} input", verdict="warning", text=text, fix=fix)


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5.0) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


NETWORK_CHECKS: tuple[Callable[[Target], Iterable[Finding]], ...] = (_broker, _data_broker, _depot, _mirror, _agent)
