"""Who is there: retained presence of devices that may be gone, and one identity in two devices. Pure.

Times are monotonic. A retained "online" proves nothing after a power cut of broker and device together, because the
Last Will died with the broker. It counts once the device has been heard live; devices publish their presence again when
a controller announces itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from edge_contracts.state import Presence
from edge_fleet.database.telemetry import Arrival

CONFIRM_S = 180.0
"""How long a retained "online" waits to be confirmed: three windows of telemetry."""

BOOTS = 8
"""Boots remembered of a device; one that comes back after another is a second device, since boots are never reused."""

MAX_DEVICES = 100_000
"""Devices remembered; those heard longest ago are forgotten first."""


class Attendance:
    """Of one controller. `heard` and `overdue` say what to store."""

    def __init__(self) -> None:
        self._unconfirmed: dict[str, tuple[Presence, float]] = {}
        self._assumed_gone: dict[str, Presence] = {}
        self._boots: OrderedDict[str, dict[str, str]] = OrderedDict()  # device -> boot -> time of its last presence

    def heard(self, arrival: Arrival, *, retained: bool, now: float) -> list[Arrival]:
        """Return what to store of an arrival, in order: nothing yet for a retained "online"; the presence that waited,
        too, when its device shows that it is there."""
        device = arrival.device
        if isinstance(arrival, Presence):
            if retained and arrival.online:
                self._unconfirmed.setdefault(device, (arrival, now + CONFIRM_S))
                return []
            self._unconfirmed.pop(device, None)
            self._assumed_gone.pop(device, None)
            return [arrival]
        if retained:
            return [arrival]
        waiting = self._unconfirmed.pop(device, None)
        presence = self._assumed_gone.pop(device, None) if waiting is None else waiting[0]
        return [arrival] if presence is None else [presence, arrival]

    def expect(self, online: Iterable[Presence], now: float) -> None:
        """Take in who was online as far as the store knows; what nothing confirms in time is gone."""
        for presence in online:
            self._unconfirmed.setdefault(presence.device, (presence, now + CONFIRM_S))

    def overdue(self, now: float) -> list[Presence]:
        """Return what to store of the devices whose retained "online" nothing has confirmed in time: that it was said,
        and that they are gone."""
        late = [device for device, (_, until) in self._unconfirmed.items() if now >= until]
        words = []
        for device in late:
            presence, _ = self._unconfirmed.pop(device)
            self._assumed_gone[device] = presence
            words += [presence, Presence(device=device, boot_id=presence.boot_id, online=False)]
        return words

    def contested(self, presence: Presence) -> tuple[str, str] | None:
        """Take in a live presence; return the two boots of two devices that use this identity, if it shows that. One
        that is not newer than the last of its boot is a redelivery and shows nothing."""
        if not presence.online:
            return None
        known = self._boots.setdefault(presence.device, {})
        self._boots.move_to_end(presence.device)
        if len(self._boots) > MAX_DEVICES:
            self._boots.popitem(last=False)
        boot, time, latest = presence.boot_id, presence.time or "", next(reversed(known), "")
        before = known.get(boot)
        if before is not None and time <= before:
            return None
        known.pop(boot, None)
        known[boot] = time
        if len(known) > BOOTS:
            del known[next(iter(known))]
        return (latest, boot) if before is not None and latest != boot else None
