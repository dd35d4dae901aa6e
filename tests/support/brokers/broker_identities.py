"""Certificates and clients for tests of the broker configuration: made at run time, thrown away with the test."""

from __future__ import annotations

import queue
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edge_fleet.identity import authority as ca

WAIT_S = 5.0


class Authority:
    """The fleet's authority, with all that a broker needs beside it in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._authority = ca.Authority(folder / "authority")
        self._authority.create(datetime.now(UTC))
        self.file = self._authority.folder / "broker-ca.pem"
        for name in (ca.DEVICE_CA, ca.CLAIM_CA):
            (folder / f"{name}.pem").write_bytes(self._authority.pem(name))
        self.write_broker()
        self.revoke()

    def write_broker(self, begin: timedelta = timedelta(minutes=-5), life: timedelta = timedelta(days=1)) -> None:
        """Write the broker's certificate and key; its term begins `begin` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._authority.sign_broker(["127.0.0.1"], key.public_key(), _term(begin, life))
        self._write("broker", certificate, key)

    def issue(self, name: str, *, begin: timedelta = timedelta(minutes=-5)) -> tuple[Path, Path]:
        """Return the certificate and key files of a new device or service."""
        return self._client(ca.DEVICE_CA, name, begin)

    def issue_claim(self, name: str) -> tuple[Path, Path]:
        """Return the certificate and key files of a claim."""
        return self._client(ca.CLAIM_CA, name, timedelta(minutes=-5))

    def revoke(self, *certificates: Path) -> None:
        """Write the list of revoked certificates, these and no others."""
        serials = [x509.load_pem_x509_certificate(path.read_bytes()).serial_number for path in certificates]
        # OpenSSL takes the newer of two lists it has, by whole seconds.
        later = datetime.now(UTC) + timedelta(seconds=len(serials))
        (self._folder / "revoked.pem").write_bytes(self._authority.sign_revocations(serials, later))

    def _client(self, signer: ca.CaName, name: str, begin: timedelta) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._authority.sign_client(signer, name, key.public_key(), _term(begin, timedelta(days=1)))
        return self._write(name, certificate, key)

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(ca.private_pem(key))
        return files


def _term(begin: timedelta, life: timedelta) -> ca.Term:
    start = datetime.now(UTC) + begin
    return ca.Term(begin=start, end=start + life)


class Identity:
    """One MQTT client with (or without) a certificate; remembers what it received."""

    def __init__(self, port: int, ca: Path, pair: tuple[Path, Path] | None, *, username: str | None = None) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._news = threading.Condition()
        self._subscribed = threading.Event()
        outcome: queue.SimpleQueue[bool] = queue.SimpleQueue()
        context = ssl.create_default_context(cafile=str(ca))
        if pair is not None:
            context.load_cert_chain(*pair)
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.tls_set_context(context)
        if username is not None:
            self._client.username_pw_set(username, "x")
        self._client.on_connect = lambda *_: outcome.put(True)
        self._client.on_disconnect = lambda *_: outcome.put(False)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not outcome.get(timeout=WAIT_S):
            self.close()
            raise ConnectionError("the broker did not accept the connection")

    def subscribe(self, *topics: str) -> None:
        """Subscribe and wait for the broker's word."""
        for topic in topics:
            self._subscribed.clear()
            self._client.subscribe(topic, qos=1)
            assert self._subscribed.wait(WAIT_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait until the broker has acknowledged it (which it does even if it drops it)."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def wait_for(self, payload: bytes) -> list[tuple[str, bytes]]:
        """Return all that was received up to and including `payload`."""
        deadline = time.monotonic() + WAIT_S
        with self._news:
            while payload not in [body for _, body in self.received]:
                assert self._news.wait(deadline - time.monotonic()), f"{payload!r} did not arrive"
            return list(self.received)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, client: object, userdata: object, message: mqtt.MQTTMessage) -> None:
        with self._news:
            self.received.append((message.topic, message.payload))
            self._news.notify_all()
