"""A broker that says what the test wants: limits in CONNACK, reason codes, silence, packets nobody should send.

with ScriptedBroker(puback=lambda message: 0x97) as broker: ...     broker.port, broker.published, broker.connections

It speaks MQTT 5 and 3.1.1 as far as clients of ours do, and delivers nothing by itself: `broker.send` does. It
stands in for brokers that cannot be installed here (EMQX, HiveMQ, AWS IoT Core) and for those that break the rules.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedReader

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


@dataclass(frozen=True, kw_only=True)
class Published:
    """A message as the client sent it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass
class Connection:
    """One client's connection; `version` is 4 (3.1.1) or 5."""

    stream: socket.socket
    version: int = 5
    client_id: str = ""
    topics: list[str] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)


class ScriptedBroker:
    """See the module. `connack` gives (reason code, properties) of a connection by its number from 0; `suback` and
    `puback` the reason code of a topic filter or a message, None for no answer; `puback` -1 hangs up."""

    def __init__(
        self,
        *,
        connack: Callable[[int], tuple[int, bytes]] = lambda _: (0, b""),
        suback: Callable[[str], int | None] = lambda _: 0,
        puback: Callable[[Published], int | None] = lambda _: 0,
    ) -> None:
        self.connack, self.suback, self.puback = connack, suback, puback
        self.connections: list[Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []

    @property
    def published(self) -> list[Published]:
        """Everything that was ever published, in order of connections."""
        return [message for connection in self.connections for message in connection.published]

    def send(self, packet: bytes, client_id: str | None = None) -> None:
        """Send a packet to the newest connection, or the newest of a client."""
        chosen = [one for one in self.connections if client_id in (None, one.client_id)]
        chosen[-1].stream.sendall(packet)

    def disconnect(self, code: int) -> None:
        """Tell the newest connection why, and hang up."""
        stream = self.connections[-1].stream
        stream.sendall(packet(DISCONNECT, bytes([code, 0])))
        with suppress(OSError):  # the client may be the quicker one
            stream.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> ScriptedBroker:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._spawn(self._serve, self._listener.accept()[0])

    def _serve(self, stream: socket.socket) -> None:
        with stream, stream.makefile("rb") as reader, suppress(OSError, EOFError):
            connection = Connection(stream)
            while True:
                head, body = read_packet(reader)
                self._answer(connection, head, body)

    def _answer(self, connection: Connection, head: int, body: bytes) -> None:
        kind = head >> 4
        if kind == CONNECT:
            self._greet(connection, body)
        elif kind == PINGREQ:
            connection.stream.sendall(packet(PINGRESP, b""))
        elif kind == SUBSCRIBE:
            self._subscribe(connection, body)
        elif kind == PUBLISH:
            self._take(connection, head, body)
        elif kind == DISCONNECT:
            raise EOFError

    def _greet(self, connection: Connection, body: bytes) -> None:
        connection.version = body[6]
        rest = body[10:]
        if connection.version == 5:
            rest = _skip_properties(rest)
        connection.client_id, _ = _text(rest)
        number = len(self.connections)
        self.connections.append(connection)
        code, properties = self.connack(number)
        more = _variable(len(properties)) + properties if connection.version == 5 else b""
        connection.stream.sendall(packet(CONNACK, bytes([0, code]) + more))
        if code:
            raise EOFError

    def _subscribe(self, connection: Connection, body: bytes) -> None:
        identifier, rest = body[:2], body[2:]
        topic, _ = _text(_skip_properties(rest) if connection.version == 5 else rest)
        connection.topics.append(topic)
        code = self.suback(topic)
        if code is not None:
            properties = b"\0" if connection.version == 5 else b""
            connection.stream.sendall(packet(SUBACK, identifier + properties + bytes([code])))

    def _take(self, connection: Connection, head: int, body: bytes) -> None:
        topic, rest = _text(body)
        qos = head >> 1 & 3
        identifier, rest = (rest[:2], rest[2:]) if qos else (b"", rest)
        payload = _skip_properties(rest) if connection.version == 5 else rest
        message = Published(topic=topic, payload=payload, qos=qos, retain=bool(head & 1))
        connection.published.append(message)
        code = self.puback(message)
        if code == -1:
            raise EOFError
        if qos and code is not None:
            reason = bytes([code, 0]) if connection.version == 5 and code else b""
            connection.stream.sendall(packet(PUBACK, identifier + reason))


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """Return a control packet."""
    return bytes([kind << 4 | flags]) + _variable(len(body)) + body


def publish(topic: bytes, payload: bytes) -> bytes:
    """Return a PUBLISH of MQTT 5 at QoS 0; `topic` may be anything."""
    return packet(PUBLISH, len(topic).to_bytes(2, "big") + topic + b"\0" + payload)


def read_packet(reader: BufferedReader) -> tuple[int, bytes]:
    """Return the first byte and the body of the next packet. Raises EOFError."""
    head = reader.read(1)
    size = shift = 0
    while head:
        byte = reader.read(1)
        if not byte:
            break
        size |= (byte[0] & 127) << shift
        shift += 7
        if not byte[0] & 128:
            body = reader.read(size)
            if len(body) == size:
                return head[0], body
            break
    raise EOFError


def _variable(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _skip_properties(data: bytes) -> bytes:
    size = shift = used = 0
    while True:
        size |= (data[used] & 127) << shift
        shift, used = shift + 7, used + 1
        if not data[used - 1] & 128:
            return data[used + size :]


def _text(data: bytes) -> tuple[str, bytes]:
    size = int.from_bytes(data[:2], "big")
    return data[2 : 2 + size].decode(), data[2 + size :]
