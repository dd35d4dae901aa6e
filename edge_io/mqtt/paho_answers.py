"""What paho-mqtt's callbacks say, in one form: 1.6 (Debian 12) and 2 hand over different arguments.

paho 1.6 does not tell the reason of a PUBACK: there a refused message looks taken.
"""

from __future__ import annotations

from typing import Any

from edge_io.mqtt.words import FAILURE, UNSUPPORTED_VERSION, BrokerLimits

REASON_CHARS = 200
"""So much of what a broker adds to a reason code is repeated."""

_OLD_CONNACK = {1: UNSUPPORTED_VERSION, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
"""Return codes of MQTT 3.1.1's CONNACK (section 3.2.2.3) -> reason code of MQTT 5."""


def code_of(answer: Any) -> int:
    """Return the reason code of MQTT 5 that an answer stands for: of a ReasonCode, or of 3.1.1's CONNACK."""
    value = getattr(answer, "value", answer)
    number = int(value) if isinstance(value, int) else 0
    return _OLD_CONNACK.get(number, number) if isinstance(answer, int) else number


def suback_codes(answers: Any) -> list[int]:
    """Return the reason codes of a SUBACK; 3.1.1 has granted QoS there, and 0x80."""
    return [code_of(answer) if not isinstance(answer, int) else answer for answer in answers]


def disconnect_code(arguments: tuple[Any, ...]) -> int | None:
    """Return the reason code of the broker's DISCONNECT, from what follows the user data; None if it sent none."""
    if arguments and hasattr(arguments[0], "is_disconnect_packet_from_server"):  # paho-mqtt 2
        return code_of(arguments[1]) if arguments[0].is_disconnect_packet_from_server else None
    first = arguments[0] if arguments else None
    return code_of(first) if hasattr(first, "getName") else None


def puback_code(arguments: tuple[Any, ...]) -> int:
    """Return the reason code of a PUBACK, from what follows the packet identifier."""
    return code_of(arguments[0]) if arguments else 0


def limits_of(properties: Any) -> BrokerLimits:
    """Return what CONNACK's properties say."""

    def told(name: str, default: Any) -> Any:
        return getattr(properties, name, default)

    return BrokerLimits(
        max_packet_bytes=told("MaximumPacketSize", None),
        receive_maximum=max(1, told("ReceiveMaximum", 65_535)),
        max_qos=told("MaximumQoS", 2),
        retain=bool(told("RetainAvailable", 1)),
        shared_subscriptions=bool(told("SharedSubscriptionAvailable", 1)),
        wildcard_subscriptions=bool(told("WildcardSubscriptionAvailable", 1)),
        keepalive_s=told("ServerKeepAlive", None),
        session_s=told("SessionExpiryInterval", None),
    )


def reason_text(code: int, properties: Any = None) -> str:
    """Return a reason code in words, with its number and what the broker adds to it in an answer's properties."""
    name = _NAMES.get(code, "refused" if code >= FAILURE else "")
    text = f"{name} (0x{code:02X})" if name else f"0x{code:02X}"
    told = (_printable(getattr(properties, part, None)) for part in ("ReasonString", "ServerReference"))
    return ": ".join([text, *filter(None, told)])


def properties_in(arguments: tuple[Any, ...]) -> Any:
    """Return an answer's properties, which paho hands over last; None without any (3.1.1)."""
    return next((one for one in reversed(arguments) if hasattr(one, "packetType") and hasattr(one, "types")), None)


def _printable(text: object) -> str:
    return "".join(character for character in str(text or "")[:REASON_CHARS] if character.isprintable())


_NAMES = {
    0x80: "Unspecified error",
    0x81: "Malformed packet",
    0x82: "Protocol error",
    0x83: "Implementation specific error",
    0x84: "Unsupported protocol version",
    0x85: "Client identifier not valid",
    0x86: "Bad user name or password",
    0x87: "Not authorized",
    0x88: "Server unavailable",
    0x89: "Server busy",
    0x8A: "Banned",
    0x8B: "Server shutting down",
    0x8C: "Bad authentication method",
    0x8D: "Keep alive timeout",
    0x8E: "Session taken over",
    0x8F: "Topic filter invalid",
    0x90: "Topic name invalid",
    0x91: "Packet identifier in use",
    0x93: "Receive maximum exceeded",
    0x94: "Topic alias invalid",
    0x95: "Packet too large",
    0x96: "Message rate too high",
    0x97: "Quota exceeded",
    0x98: "Administrative action",
    0x99: "Payload format invalid",
    0x9A: "Retain not supported",
    0x9B: "QoS not supported",
    0x9C: "Use another server",
    0x9D: "Server moved",
    0x9E: "Shared subscription not supported",
    0x9F: "Connection rate exceeded",
    0xA0: "Maximum connect time",
    0xA1: "Subscription identifiers not supported",
    0xA2: "Wildcard subscription not supported",
}
