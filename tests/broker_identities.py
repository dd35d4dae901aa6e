"""Certificates and clients for tests of the broker configuration: made at run time, thrown away with the test."""

from __future__ import annotations

import datetime
import ipaddress
import queue
import ssl
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

WAIT_S = 5.0


class Authority:
    """A certificate authority that writes PEM files into one folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = _named(f"Test {name}")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        basic = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        draft = _draft(self._name, self._name, self._key.public_key())
        draft = draft.add_extension(basic, critical=True).add_extension(usage, critical=True)
        self.file.write_bytes(draft.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, common_name: str, *, file: str | None = None) -> tuple[Path, Path]:
        """Return the certificate and key files of a new identity, good for 127.0.0.1 as a server too."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        draft = _draft(_named(common_name), self._name, key.public_key()).add_extension(address, critical=False)
        certificate = self._folder / f"{file or common_name}.pem"
        secret = self._folder / f"{file or common_name}.key"
        certificate.write_bytes(draft.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _draft(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    draft = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    draft = draft.serial_number(x509.random_serial_number())
    return draft.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=1))


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
