"""The carrier over MQTT: requests to a depot and its responses, QoS 0, asked again when nothing comes.

QoS 0 because chunks are named by hash: asking again by name does all that QoS 1 would, at a fraction of its cost. The
connection is the updater's own, beside the supervisor's. Other carriers are in `edge_agent.adapters.carriers`.
"""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer

from edge_agent.adapters.carriers import repository_path
from edge_agent.adapters.mqtt import Arrived, LinkEvent, MqttLink
from edge_agent.config import BrokerConfig
from edge_agent.core.backoff import RoundTrip
from edge_agent.errors import NotFoundError, RetryAfterError, UnreachableError
from edge_agent.ports import ObjectKind
from edge_contracts.errors import ContractError
from edge_contracts.topics import device_topic
from edge_contracts.transfer import Request, Response, pack, unpack_response


class MqttCarrier:
    """`timeout_s` bounds one answer over all its tries; a depot's wish to wait is granted within `patience_s`."""

    def __init__(
        self, settings: BrokerConfig, tenant: str, device: str, *, timeout_s: float, patience_s: float = 600.0
    ) -> None:
        self._request_topic = device_topic(tenant, device, "req")
        self._reply_topic = device_topic(tenant, device, "rsp", secrets.token_hex(8))
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Response]] = {}
        self._next_id = 0
        self._round_trip = RoundTrip()
        client_id = f"ew-{device}-update-{secrets.token_hex(4)}"
        self._link = MqttLink(settings, client_id, ((self._reply_topic, 0),), self._heard)
        self._link.start()

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        repository_path(kind, name)  # refuses a name no object can have before it is sent
        patience_ends = time.monotonic() + self._patience_s
        while True:
            response = self._answer(kind, name, offset, length)
            if response.status == "retry_after" and time.monotonic() + response.retry_after < patience_ends:
                time.sleep(max(0.05, response.retry_after))
                continue
            return _body(response, f"{kind} {name}", offset, length)

    def close(self) -> None:
        self._link.stop()

    def _answer(self, kind: ObjectKind, name: str, offset: int, length: int) -> Response:
        deadline = time.monotonic() + self._timeout_s
        tries = 0
        while (left := deadline - time.monotonic()) > 0:
            if not self._link.wait_connected(left):
                break
            number, future = self._register()
            request = Request(id=number, reply=self._reply_topic, kind=kind, name=name, offset=offset, length=length)
            sent = time.monotonic()
            self._link.publish(self._request_topic, pack(request))
            tries += 1
            try:
                response = future.result(min(self._round_trip.timeout_s, max(0.0, deadline - sent)))
            except NoAnswer:
                self._round_trip = self._round_trip.missed()
                continue
            finally:
                self._forget(number)
            self._round_trip = self._round_trip.observed(time.monotonic() - sent)
            return response
        what = f"no depot answered in {self._timeout_s:g} s" if tries else "no connection to the broker"
        raise UnreachableError(what, subject=f"{kind} {name}")

    def _register(self) -> tuple[int, Future[Response]]:
        future: Future[Response] = Future()
        with self._lock:
            self._next_id += 1
            self._waiting[self._next_id] = future
            return self._next_id, future

    def _forget(self, number: int) -> None:
        with self._lock:
            self._waiting.pop(number, None)

    def _heard(self, event: LinkEvent) -> None:
        if not isinstance(event, Arrived) or event.topic != self._reply_topic:
            return
        try:
            response = unpack_response(event.payload)
        except ContractError:
            return  # not from a depot of ours; the request is asked again
        with self._lock:
            future = self._waiting.pop(response.id, None)
        if future is not None:
            future.set_result(response)


def _body(response: Response, subject: str, offset: int, length: int) -> tuple[bytes, int]:
    if response.status == "not_found":
        raise NotFoundError("the depot has no such object", subject=subject)
    if response.status == "retry_after":
        raise RetryAfterError(response.retry_after)
    if response.status == "refused" or response.offset != offset or len(response.body) > length:
        raise UnreachableError("the depot's answer does not fit the request", subject=subject)
    return response.body, response.total
