"""What a broker refuses a device, kept until it takes it again: for the status, and an event for each change. Pure."""

from __future__ import annotations

from edge_agent.device_event import DeviceEvent
from edge_io.mqtt.brief_connections import BriefConnections
from edge_io.mqtt.words import Connected, Disconnected, Granted

CONTESTED_S = 900.0
"""How long after the last takeover the status names the other client."""

MAX_NAMED = 20
"""Troubles kept at once; more topics than that have the same cause."""


class BrokerRefusals:
    """What one link of the device may not do, by what it concerns. `link` names the link in events. Each method
    returns the events that are due; times are monotonic."""

    def __init__(self, link: str) -> None:
        self._link = link
        self._refused: dict[str, str] = {}
        self._contested = ""
        self._contested_until = 0.0
        self._brief = BriefConnections()

    def text(self, now: float) -> str:
        """Return all troubles in a line, "" without any."""
        named = [f"{what}: {why}" for what, why in self._refused.items()]
        return "; ".join(filter(None, (self.contested(now), *named)))

    def contested(self, now: float) -> str:
        """Return what is known of another client with this one's id, "" if nothing is known of late."""
        return self._contested if now < self._contested_until else ""

    def refuse(self, what: str, why: str, outcome: str) -> tuple[DeviceEvent, ...]:
        """Note that the broker refuses `what`; `outcome` says what becomes of it."""
        known = self._refused.get(what) == why
        if len(self._refused) < MAX_NAMED or what in self._refused:
            self._refused[what] = why
        if known:
            return ()
        text = f"{self._link} refuses {what}: {why}; {outcome}"
        return (DeviceEvent(event="broker-refused", severity="warning", text=text, detail={"what": what[:200]}),)

    def take(self, what: str) -> tuple[DeviceEvent, ...]:
        """Note that the broker takes `what` now."""
        if self._refused.pop(what, None) is None:
            return ()
        return (DeviceEvent(event="broker-accepts", text=f"{self._link} takes {what} again"),)

    def greeted(self, event: Connected, now: float) -> tuple[DeviceEvent, ...]:
        """Note what the broker grants at a new connection."""
        self._brief.connected(now)
        refused = {f"subscription {one.topic}": one.reason for one in event.refused}
        events: list[DeviceEvent] = []
        for what in [what for what in self._refused if what.startswith("subscription ") and what not in refused]:
            events += self.take(what)
        for what, why in refused.items():
            events += self.refuse(what, why, "nothing comes in there, and it is asked again and again")
        if event.limits.retain:
            events += self.take("retained messages")
        else:
            events += self.refuse("retained messages", "it keeps none", "they are sent and nobody finds them later")
        if event.limits.max_qos == 0:
            events += self.refuse("acknowledged messages", "it has QoS 0 only", "what is lost on the way is lost")
        else:
            events += self.take("acknowledged messages")
        return tuple(events)

    def granted(self, event: Granted) -> tuple[DeviceEvent, ...]:
        """Note that the broker grants a subscription now that it had refused."""
        return self.take(f"subscription {event.topic}")

    def lasts(self, now: float) -> tuple[DeviceEvent, ...]:
        """Note that the connection stands at this time."""
        return self.take("the connection") if self._brief.lasts(now) else ()

    def ended(self, event: Disconnected, now: float) -> tuple[DeviceEvent, ...]:
        """Note how a connection ended, or that none was made."""
        guess = self._brief.ended(event, now)
        if event.ending == "taken-over":
            return self.contest(event.reason, now)
        if not guess:
            return ()
        return self.refuse("the connection", f"ended soon each time, {guess}", "tried again ever more seldom")

    def contest(self, reason: str, now: float) -> tuple[DeviceEvent, ...]:
        """Note that another client uses what is this device's."""
        known = now < self._contested_until
        self._contested, self._contested_until = reason, now + CONTESTED_S
        text = f"{self._link}: {reason}. Two devices may have one device.id, or one card image"
        return () if known else (DeviceEvent(event="client-id-contested", severity="error", text=text),)
