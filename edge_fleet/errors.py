"""Errors of the fleet side, on the branches of `edge_contracts.errors` by whose fault they are."""

from __future__ import annotations

from edge_contracts.enrollment import Refusal
from edge_contracts.errors import BundleError, OperatorError, TransportError, TrustError


class FleetError(OperatorError):
    """The fleet folder, its settings or a command's arguments are wrong; names the field or the file."""

    reason = "fleet"


class KeyMissingError(OperatorError):
    """A command must sign for a role whose private key is not here; names the file that is looked for."""

    reason = "key-missing"


class KeyExposedError(OperatorError):
    """A private key lies, or would lie, where others can read it: in a git work tree, or with open permissions."""

    reason = "key-exposed"


class KeyLockedError(OperatorError):
    """A private key is encrypted or on a token, and its passphrase or PIN is missing or wrong; names the key."""

    reason = "key-locked"


class CeremonyError(OperatorError):
    """A change of keys cannot be made, or may not be applied yet; names the role or the file."""

    reason = "ceremony"


class FleetBusyError(OperatorError):
    """Another command is changing the same repository and did not finish in time."""

    reason = "busy"


class RolloutError(OperatorError):
    """The channel's state does not allow what was asked of it; nothing was signed."""

    reason = "rollout"


class ReleaseError(BundleError):
    """A bundle does not hold what its manifest pins, or cannot become a release; names the file or the version."""

    reason = "release"


class RepositoryError(BundleError):
    """The repository on disk is incomplete or damaged; names the file."""

    reason = "repository"


class ObjectNameError(TransportError):
    """A name asked of the depot is not one a repository object can have."""

    reason = "object-name"


class ObjectMissingError(TransportError):
    """The repository has no object of that name, or nothing at that offset."""

    reason = "object-missing"


class UpstreamError(TransportError):
    """The upstream repository cannot be reached, broke off, or is too slow; names the URL."""

    reason = "upstream"


class UpstreamBusyError(UpstreamError):
    """The upstream asks to come back in `delay_s` seconds."""

    def __init__(self, message: str, *, subject: str, delay_s: float) -> None:
        super().__init__(message, subject=subject)
        self.delay_s = delay_s


class UpstreamObjectError(TransportError):
    """What the upstream repository gave is larger than its kind may be, or not what its name says; names the URL."""

    reason = "upstream-object"


class BrokerError(TransportError):
    """The broker refused the connection or a subscription; names its address."""

    reason = "broker"


class EnrollmentError(TrustError):
    """Somebody asks for a certificate that they may not have; `refusal` is what they are told."""

    reason = "enrolment"

    def __init__(self, refusal: Refusal, who: str) -> None:
        super().__init__(f"no certificate: {refusal}", subject=who)
        self.refusal: Refusal = refusal
