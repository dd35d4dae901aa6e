"""One slot's data topics: what arrives waits in a bounded queue, is asked of the slot, and its answer is published.

Everything that arrives is untrusted: sizes are checked here, tensors by the slot, and a refusal is a message on the
slot's error topic. The connection is in `edge_agent.supervisor.mqtt_gateway.gateway`, the forms of messages in
`edge_agent.supervisor.mqtt_gateway.messages`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.config.agent_toml import MqttTopics
from edge_agent.device_event import DeviceEvent
from edge_agent.errors import TensorError, UnreachableError
from edge_agent.supervisor.mqtt_gateway.messages import Body, DataError, answer_payload, request_body, request_id
from edge_agent.supervisor.mqtt_gateway.queue import BoundedQueue
from edge_agent.supervisor.mqtt_gateway.slot_client import SlotAnswer, SlotClient
from edge_agent.supervisor.slots.freshness import NO_INPUT, Freshness
from edge_agent.supervisor.slots.slot import Slot
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError, EdgewrightError
from edge_contracts.limits import MAX_DATA_BYTES, MAX_QUEUED_DATA_BYTES
from edge_io.mqtt.words import MessageReceived

_log = logging.getLogger(__name__)

Publish = Callable[[str, bytes, bytes | None, Callable[[bool], None]], Awaitable[None]]
"""Topic, payload, correlation data of MQTT 5, and who is told whether the broker has taken it. Returns once the next
message may come."""


class SlotBridge:
    """Made and used on the supervisor's event loop. `answered` is told of every answer; `room` says how many bytes the
    broker takes on a topic."""

    def __init__(
        self,
        slot: Slot,
        topics: MqttTopics,
        publish: Publish,
        tell: Callable[[DeviceEvent], None],
        answered: Callable[[Slot, Body], None],
        room: Callable[[str], int],
    ) -> None:
        self.slot = slot
        self.topics = topics
        self._publish = publish
        self._tell = tell
        self._answered = answered
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._intake: BoundedQueue[MessageReceived] = BoundedQueue(
            limit=topics.queue, max_bytes=MAX_QUEUED_DATA_BYTES, drop=topics.drop
        )
        self._fresh = Freshness(stale_after_s=topics.stale_after_s, last=self._loop.time())
        self._waiting = asyncio.Event()
        self._client = SlotClient(lambda: slot.http)
        self._task = asyncio.create_task(self._run())

    @property
    def faults(self) -> tuple[str, ...]:
        return (NO_INPUT,) if self._fresh.stale else ()

    @property
    def gauges(self) -> dict[str, float]:
        """Return the seconds since the last input, and how many inputs wait."""
        return {
            "input_age_s": round(self._loop.time() - self._fresh.last, 3),
            "input_waiting": float(len(self._intake)),
        }

    def hear(self, message: MessageReceived) -> None:
        """Let a message wait its turn. One that was retained is old and is no input."""
        if message.retained:
            return
        if self._fresh.seen(self._loop.time()):
            self._news("input-fresh", "info", f"input on {self.topics.input} resumed")
        self._count("mqtt_received")
        dropped = self._intake.offer(message, len(message.payload))
        if dropped:
            self._count("mqtt_dropped", dropped)
            _log.warning("slot %s: input dropped, too many messages wait for their answers", self.slot.config.name)
        self._waiting.set()

    def look(self, now: float) -> None:
        """Notice a silence that has become a fault. To be called about once a second."""
        if self._fresh.look(now):
            text = f"no input on {self.topics.input} for {now - self._fresh.last:.1f} s"
            self._news("input-stale", "warning", text)

    async def stop(self) -> None:
        """End; what still waits is dropped."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()

    async def _run(self) -> None:
        while True:
            if not len(self._intake):
                self._waiting.clear()
                await self._waiting.wait()
            try:
                await self._serve(self._intake.take())
            except Exception:
                _log.exception(
                    "slot %s: a message on a data topic failed", self.slot.config.name
                )  # the next one may not

    async def _serve(self, message: MessageReceived) -> None:
        """Answer one message, or say why not."""
        try:
            topic = self._reply_topic(message)
            body = await self._ask(message.payload, message.topic)
            payload = answer_payload(body)
            room = min(MAX_DATA_BYTES, self._room(topic))
            if len(payload) > room:
                raise ContractError(f"{len(payload)} bytes, over {room}: send it over HTTP", subject="answer")
        except EdgewrightError as error:
            await self._refuse(message, error)
            return
        self._answered(self.slot, body)
        await self._publish(topic, payload, message.correlation, self._sent)

    def _sent(self, taken: bool) -> None:
        self._count("mqtt_answered" if taken else "mqtt_unsent")

    async def _ask(self, payload: bytes, stream: str) -> Body:
        if len(payload) > MAX_DATA_BYTES:
            raise ContractError(f"{len(payload)} bytes, over the limit of {MAX_DATA_BYTES}", subject="payload")
        request = request_body(payload)
        model = self.slot.model
        if model is None:
            raise UnreachableError("no release installed yet", subject=self.slot.config.name)
        answer = await self._client.infer(model, request, self.topics.timeout_s, stream)
        if answer.status != 200:
            raise _refusal(answer)
        return answer.body

    async def _refuse(self, message: MessageReceived, error: EdgewrightError) -> None:
        self._count("mqtt_refused")
        refusal = DataError(
            slot=self.slot.config.name,
            reason=error.reason,
            error=str(error)[:2000],
            id=request_id(message.payload[:MAX_DATA_BYTES]),
        )
        await self._publish(self.topics.error, encode(refusal), message.correlation, lambda _taken: None)

    def _reply_topic(self, message: MessageReceived) -> str:
        """Return where the answer goes. A wish of the sender's is followed below the output topic only: the device
        may publish where its senders may not. Raises ContractError."""
        wish, output = message.response_topic, self.topics.output
        if wish is None:
            return output
        if not wish.startswith(f"{output}/") or wish == self.topics.error or set(wish) & set("+#\0"):
            raise ContractError(f"{wish[:200]!r} is not below {output}/", subject="response topic")
        return wish

    def _count(self, name: str, number: int = 1) -> None:
        for tally in (self.slot.window, self.slot.totals):
            tally.count(name, number)

    def _news(self, event: str, severity: str, text: str) -> None:
        self._tell(DeviceEvent(event=event, severity=severity, slot=self.slot.config.name, text=text))


def _refusal(answer: SlotAnswer) -> EdgewrightError:
    """Return the typed error for a slot's answer that is none."""
    try:
        text = str(msgspec.json.decode(answer.body.data, type=dict[str, str])["error"])
    except (msgspec.MsgspecError, KeyError):
        text = f"status {answer.status}"
    if answer.status == 400:
        return TensorError(text)
    if answer.status == 503:
        return UnreachableError(text)
    return ContractError(text, subject=f"status {answer.status}")
