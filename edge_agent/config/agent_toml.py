"""The agent's configuration, `agent.toml`: its fields, their checks and nothing that acts on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_agent.config.inference_options import Batching, Certainty
from edge_agent.config.shadow_capture import CaptureConfig, ShadowConfig
from edge_agent.errors import ConfigError
from edge_contracts import limits
from edge_contracts.codec import StrictRecord, convert
from edge_contracts.errors import ContractError
from edge_contracts.names import Name
from edge_contracts.toml import decode_toml
from edge_contracts.topics import ROOT

CREDENTIALS = "/run/credentials/"
"""Where systemd hands over the files that a unit's LoadCredential names."""

Seconds = Annotated[float, Meta(gt=0.0)]
Topic = Annotated[
    str, Meta(pattern=r"^[^/$+#\x00-\x1f][^+#\x00-\x1f]{0,199}(?!\n)$", description="A topic without wildcards.")
]


class DeviceConfig(StrictRecord, frozen=True, kw_only=True):
    """Who this device is, where it keeps its state, and where its sensors are: /sys, or the host's as a container sees
    it. Members of `status_group`, a group of this machine, may ask for the agent's status, and for nothing else."""

    id: Name
    tenant: Name = "default"
    profile: str = "x86-gateway"
    state: str = "/var/lib/edgewright"
    sensors: str = "/sys"
    status_group: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    tags: Annotated[dict[str, str], Meta(max_length=limits.MAX_TAGS)] = {}


class BrokerConfig(StrictRecord, frozen=True, kw_only=True):
    """The MQTT broker. `protocol` auto tries MQTT 5 and falls back to 3.1.1. Secrets are read from files only.

    With `tls` and without a `certificate_file`, the device is whom `agent enroll` made it: `identity` is the folder
    that holds it, by default `identity` in the state folder.
    """

    host: Annotated[str, Meta(min_length=1)]
    port: Annotated[int, Meta(ge=1, le=65535)] = 1883
    username: str | None = None
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    identity: str | None = None
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 30
    protocol: Literal["auto", "5", "3.1.1"] = "auto"


class TrustConfig(StrictRecord, frozen=True, kw_only=True):
    """The initial trusted root, installed on the device by other means than the network."""

    root: str


class UpdatesConfig(StrictRecord, frozen=True, kw_only=True):
    """When to look for updates, how long one answer and one attempt may take, and an optional HTTP mirror."""

    poll_s: Seconds = 3600.0
    timeout_s: Seconds = 30.0
    deadline_s: Seconds = 3600.0
    http: str | None = None


class TelemetryConfig(StrictRecord, frozen=True, kw_only=True):
    """How long one telemetry window is, in seconds, and whether the spool waits until a controller says on the broker
    that it stores telemetry (`edge_contracts.topics.collector_topic`); without one of ours, set it to false. `otlp` is
    the URL of an OpenTelemetry collector that has the windows too."""

    window_s: Seconds = 60.0
    wait_for_collector: bool = True
    otlp: str | None = None


class DataConfig(StrictRecord, frozen=True, kw_only=True):
    """Where the slots' data topics are, if not on the agent's own broker: a local one, for example."""

    broker: BrokerConfig | None = None


class HomeAssistantConfig(StrictRecord, frozen=True, kw_only=True):
    """Discovery messages for Home Assistant, on the broker of the data topics. `prefix` is Home Assistant's discovery
    prefix, `base` where the states are published; what has not been published for `expire_s` counts as unavailable."""

    prefix: Topic = "homeassistant"
    base: Topic = "edgewright"
    expire_s: Annotated[float, Meta(ge=3.0)] = 120.0


class MqttTopics(StrictRecord, frozen=True, kw_only=True):
    """A slot's data topics: requests on `input`, answers on `output`, refusals on `<output>/error`.

    `queue` requests wait at most; when it is full, `drop` says whether the oldest or the newest goes. No input for
    `stale_after_s` seconds is a fault; None watches nothing. An answer takes at most `timeout_s`.
    """

    input: Topic
    output: Topic
    queue: Annotated[int, Meta(ge=1, le=1024)] = 16
    drop: Literal["oldest", "newest"] = "oldest"
    stale_after_s: Seconds | None = None
    timeout_s: Seconds = 10.0

    @property
    def error(self) -> str:
        return f"{self.output}/error"


class Recycling(StrictRecord, frozen=True, kw_only=True):
    """When a worker that grows is replaced: its least memory per window of `window_s` seconds has risen by `growth_mb`
    in all, in at least eight windows. No request fails meanwhile."""

    growth_mb: Seconds = 64.0
    window_s: Seconds = 60.0


class SlotConfig(StrictRecord, frozen=True, kw_only=True):
    """One model slot. `http` is where it answers (port 0: ask the system); limits default to the profile's.
    `batch` lets requests that arrive together be answered together; `certainty` says which classes cannot be ruled out;
    `mqtt` also answers on topics; `capture` keeps requests on the disk, sealed; no request for `stale_after_s` seconds,
    whichever way, is a fault. All default off. `shadow` is what a candidate in shadow is shown. A critical device
    turns the lowest `priority` away first; one short of memory gives up the worker of a slot that nobody has asked for
    `idle_unload_s` seconds, until somebody does."""

    name: Name
    channel: Name | None = None
    factory: str | None = None
    http: str = "127.0.0.1:8080"
    threads: Annotated[int, Meta(ge=1, le=256)] | None = None
    memory_mb: Seconds | None = None
    drain_s: Seconds = 5.0
    priority: Annotated[int, Meta(ge=0, le=9)] = 0
    idle_unload_s: Seconds | None = None
    stale_after_s: Annotated[float, Meta(ge=3.0)] | None = None  # workers report once a second
    recycle: Recycling = Recycling()
    batch: Batching | None = None
    certainty: Certainty | None = None
    mqtt: MqttTopics | None = None
    shadow: ShadowConfig = ShadowConfig()
    capture: CaptureConfig | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `http`; valid once `parse_config` has accepted it."""
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)


class AgentConfig(StrictRecord, frozen=True, kw_only=True):
    """The whole file."""

    device: DeviceConfig
    broker: BrokerConfig | None = None
    trust: TrustConfig | None = None
    updates: UpdatesConfig = UpdatesConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    data: DataConfig = DataConfig()
    home_assistant: HomeAssistantConfig | None = None
    slots: Annotated[tuple[SlotConfig, ...], Meta(min_length=1, max_length=16)]

    @property
    def state(self) -> Path:
        return Path(self.device.state)

    @property
    def data_broker(self) -> BrokerConfig | None:
        """The broker of the data topics."""
        return self.data.broker or self.broker


def load_config(path: Path) -> AgentConfig:
    """Read `agent.toml`; relative paths in it are taken from the file's own folder. Raises ConfigError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    try:
        return _anchored(parse_config(decode_toml(data, what=str(path))), path.resolve().parent)
    except ConfigError as error:
        error.hint = error.hint or f"in {path}; `edgewright example agent.toml` explains every field"
        raise
    except ContractError as error:
        raise ConfigError(str(error)) from error


def parse_config(value: object) -> AgentConfig:
    """Check plain values from TOML. Raises ConfigError naming the field."""
    try:
        config = convert(value, AgentConfig, what="config")
    except ContractError as error:
        raise ConfigError(str(error)) from error
    _check_slots(config)
    _check_data(config)
    _check_captures(config)
    if config.trust is None and any(slot.channel for slot in config.slots):
        raise ConfigError("required when a slot has a channel", subject="config.trust.root")
    for field, url in (("updates.http", config.updates.http), ("telemetry.otlp", config.telemetry.otlp)):
        if url is not None and not url.startswith(("http://", "https://")):
            raise ConfigError("must begin with http:// or https://", subject=f"config.{field}")
    if config.broker is not None and (config.broker.certificate_file is None) != (config.broker.key_file is None):
        raise ConfigError("give both certificate_file and key_file", subject="config.broker.key_file")
    return config


def missing_files(config: AgentConfig) -> dict[str, str]:
    """Return the path of every named file that is not there, by the field that names it. What systemd hands over is
    there only while the service runs (`LoadCredential`), and is not looked for."""
    named = {"config.trust.root": config.trust.root if config.trust else None}
    for where, broker in (("broker", config.broker), ("data.broker", config.data.broker)):
        for name in ("password_file", "ca_file", "certificate_file", "key_file"):
            named[f"config.{where}.{name}"] = getattr(broker, name, None)
    named |= {f"config.slots[{slot.name}].capture.key": slot.capture.key for slot in config.slots if slot.capture}
    looked_for = {field: path for field, path in named.items() if path is not None and not path.startswith(CREDENTIALS)}
    return {field: path for field, path in looked_for.items() if not Path(path).is_file()}


def _check_slots(config: AgentConfig) -> None:
    names: set[str] = set()
    addresses: set[str] = set()
    for index, slot in enumerate(config.slots):
        what = f"config.slots[{index}]"
        if slot.name in names:
            raise ConfigError(f"{slot.name!r} appears twice", subject=f"{what}.name")
        if slot.channel is None and slot.factory is None:
            raise ConfigError("a slot needs a channel, a factory bundle or both", subject=what)
        host, separator, port = slot.http.rpartition(":")
        if not (separator and host and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
            raise ConfigError(f"{slot.http!r} is not HOST:PORT", subject=f"{what}.http")
        if slot.http in addresses and int(port) != 0:
            raise ConfigError(f"{slot.http!r} appears twice", subject=f"{what}.http")
        names.add(slot.name)
        addresses.add(slot.http)


def _check_data(config: AgentConfig) -> None:
    """Refuse topics through which answers could come back as questions, and topics of the fleet's own tree."""
    topics = {f"config.slots[{i}].mqtt": slot.mqtt for i, slot in enumerate(config.slots) if slot.mqtt is not None}
    if config.data_broker is None and (topics or config.home_assistant is not None):
        raise ConfigError("data topics need [broker] or [data.broker]", subject="config.data.broker")
    outputs = [mqtt.output for mqtt in topics.values()]
    for what, mqtt in topics.items():
        for field, topic in (("input", mqtt.input), ("output", mqtt.output)):
            if topic.startswith(f"{ROOT}/"):
                raise ConfigError(f"{topic!r} is one of the fleet's own topics", subject=f"{what}.{field}")
        if outputs.count(mqtt.output) > 1:
            raise ConfigError(f"{mqtt.output!r} appears twice", subject=f"{what}.output")
        if any(mqtt.input == output or mqtt.input.startswith(f"{output}/") for output in outputs):
            text = f"{mqtt.input!r} is an output topic or below one: answers would be read as requests"
            raise ConfigError(text, subject=f"{what}.input")


def _check_captures(config: AgentConfig) -> None:
    folders: set[str] = set()
    for index, slot in enumerate(config.slots):
        what = f"config.slots[{index}].capture"
        if slot.capture is None:
            continue
        if "uncertain" in slot.capture.only and slot.certainty is None:
            raise ConfigError("needs `certainty` in the same slot", subject=f"{what}.only")
        if slot.capture.folder in folders:
            raise ConfigError("is used by another slot's captures", subject=f"{what}.folder")
        if slot.capture.folder is not None:
            folders.add(slot.capture.folder)


def _anchored(config: AgentConfig, folder: Path) -> AgentConfig:
    def at(path: str | None) -> str | None:
        try:
            return None if path is None else str(folder / Path(path).expanduser())
        except RuntimeError as error:
            raise ConfigError(f"{path!r}: {error}", subject="config") from error

    replace = msgspec.structs.replace
    device = replace(config.device, state=at(config.device.state), sensors=at(config.device.sensors))
    if device.profile.endswith(".toml"):
        device = replace(device, profile=at(device.profile))
    files = ("password_file", "ca_file", "certificate_file", "key_file", "identity")

    def anchored(broker: BrokerConfig | None) -> BrokerConfig | None:
        if broker is None:
            return None
        broker = replace(broker, **{name: at(getattr(broker, name)) for name in files})
        return replace(broker, identity=broker.identity or str(Path(device.state) / "identity"))

    def captured(capture: CaptureConfig, slot: str) -> CaptureConfig:
        folder = at(capture.folder) or str(Path(device.state) / "captures" / slot)
        return replace(capture, key=at(capture.key), folder=folder)

    trust = config.trust and replace(config.trust, root=at(config.trust.root))
    slots = tuple(
        replace(slot, factory=at(slot.factory), capture=slot.capture and captured(slot.capture, slot.name))
        for slot in config.slots
    )
    data = replace(config.data, broker=anchored(config.data.broker))
    return replace(config, device=device, broker=anchored(config.broker), data=data, trust=trust, slots=slots)
