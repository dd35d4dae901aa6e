"""The enrollment service: the one online process that holds the key for device certificates.

It listens on the broker, decides with `edge_fleet.identity.enrollment` and answers. A process of its own, so that
neither a depot nor a controller has that key. Several may run on one database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from edge_contracts.codec import StrictRecord
from edge_contracts.errors import EdgewrightError
from edge_contracts.topics import ENROLLMENT_GROUP, all_devices, claim_topic, shared
from edge_fleet.database.certificates import CertificateStore
from edge_fleet.identity.authority import DEVICE_CA
from edge_fleet.identity.claims import authority_of
from edge_fleet.identity.enrollment import DEVICE_LIFE, Enrollment
from edge_fleet.mqtt import STEP_S, Broker, BrokerConnection, ServiceLink, new_client_id
from edge_fleet.signing.workspace import FleetWorkspace
from edge_io.mqtt.words import MessageReceived, Subscription


class EnrollmentDesk(StrictRecord, frozen=True, kw_only=True):
    """Where the service works, and how long a device's certificate is good."""

    broker: Broker
    store_url: str
    life: timedelta = DEVICE_LIFE


def serve_enrollment(
    fleet: FleetWorkspace,
    desk: EnrollmentDesk,
    say: Callable[[str], None],
    log: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    """Answer until `stopped`. Says `enrollment ready` once subscribed. Raises FleetError without an authority,
    BrokerError if the broker refuses us."""
    authority = authority_of(fleet)
    authority.check_key(DEVICE_CA)
    store = CertificateStore(desk.store_url)
    enrollment = Enrollment(fleet.tenant, authority, store, desk.life)

    def receive(delivery: MessageReceived) -> None:
        before = enrollment.counts.copy()
        try:
            answer = enrollment.answer(delivery.topic, delivery.payload, datetime.now(UTC))
        except (EdgewrightError, SQLAlchemyError, OSError) as error:
            log(f"cannot reply on {delivery.topic[:200]!r}: {str(error)[:300]}")  # the device asks again
            return
        outcome = ", ".join(enrollment.counts - before)
        device = f" to {enrollment.newest}" if "issued" in outcome else ""
        log(f"{outcome}{device}: {delivery.topic[:200]!r}")
        if answer is not None:
            link.publish(*answer, qos=1)

    place = ServiceLink(
        broker=desk.broker, subscriptions=subscriptions(fleet.tenant), client_id=new_client_id("enrollment")
    )
    link = BrokerConnection(place, receive, lambda: say("enrollment ready"), log)
    try:
        link.run(lambda: STEP_S, stopped)
    finally:
        store.close()
        log(" ".join(["enrolment", *(f"{name}={count}" for name, count in sorted(enrollment.counts.items()))]))


def subscriptions(tenant: str) -> list[Subscription]:
    """Return what the service listens to."""
    return [
        Subscription(topic=shared(ENROLLMENT_GROUP, claim_topic(tenant, "+", "req")), qos=1),
        Subscription(topic=shared(ENROLLMENT_GROUP, all_devices(tenant, "renew")), qos=1),
    ]
