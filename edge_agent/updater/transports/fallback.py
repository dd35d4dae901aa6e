"""Several transports to one repository, each asked when the one before cannot be reached or brings wrong bytes.

A page of a captive portal, a mirror that is synced by half or a stale copy in a cache are answers, too: only who
verifies can tell. So what is verified as a whole is fetched as a whole from one carrier (`from_any`), and from the next
one when it does not verify.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from edge_agent.errors import ConfigError, MissingTargetError, RetryAfterError, UnreachableError
from edge_agent.ports import ObjectKind, Transport
from edge_agent.updater.byte_budget import BudgetError
from edge_contracts.errors import EdgewrightError, TransportError, TrustError

T = TypeVar("T")

Failed = Callable[[str, EdgewrightError], None]


class StaleError(TransportError):
    """What a carrier brings verifies, but something newer has been announced."""

    reason = "stale"


class FallbackTransport:
    """The carriers by name, in the order in which they are asked; one that fails goes to the end. Chunks are named by
    hash, so it does not matter which carrier brings which. `failed` hears of each failure, from any thread."""

    def __init__(self, carriers: Mapping[str, Transport], failed: Failed = lambda _name, _error: None) -> None:
        self._carriers = tuple(carriers.items())
        self._failed = failed

    @property
    def carriers(self) -> tuple[tuple[str, Transport], ...]:
        return self._carriers

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:
        order = self._carriers
        for carrier, transport in order[:-1]:
            try:
                return transport.read(kind, name, offset, length)
            except (UnreachableError, RetryAfterError) as error:
                self.demote(carrier, error)
        return order[-1][1].read(kind, name, offset, length)

    def demote(self, name: str, error: EdgewrightError) -> None:
        """Ask this carrier last from now on."""
        self._failed(name, error)
        self._carriers = (*(c for c in self._carriers if c[0] != name), *(c for c in self._carriers if c[0] == name))


class NoTransport:
    """What a device that is updated by sticks alone asks between them: every read raises ConfigError."""

    def read(self, kind: ObjectKind, name: str, offset: int, length: int) -> tuple[bytes, int]:  # noqa: ARG002
        raise ConfigError("neither a broker nor an HTTP mirror is configured", subject="config.broker")


def from_any(transport: Transport, attempt: Callable[[Transport], T]) -> T:
    """Return what `attempt` makes of the first carrier whose bytes it accepts.

    Raises what it raises when none is left: the gravest of the errors, with the carrier's name as a note. A budget that
    is used up or a target that nobody has signed is no carrier's fault and is raised at once.
    """
    if not isinstance(transport, FallbackTransport):
        return attempt(transport)
    errors: list[TransportError | TrustError] = []
    for name, carrier in transport.carriers:
        try:
            return attempt(carrier)
        except (BudgetError, MissingTargetError):
            raise
        except (TransportError, TrustError) as error:
            error.add_note(f"from {name}")
            errors.append(error)
            if len(transport.carriers) > 1:
                transport.demote(name, error)
    raise max(errors, key=_gravity)


def several(transport: Transport) -> bool:
    """Return whether there is more than one carrier to ask."""
    return isinstance(transport, FallbackTransport) and len(transport.carriers) > 1


def _gravity(error: TransportError | TrustError) -> int:
    """What verifies and is old can be worked with; what nobody brought will come; what is wrong has to be looked at."""
    if isinstance(error, StaleError):
        return 2
    return 1 if isinstance(error, TrustError) else 0
