"""Errors of the agent, on the branches of `edge_contracts.errors` by whose fault they are."""

from __future__ import annotations

from edge_contracts.errors import BundleError, DeviceError, OperatorError, TransportError, TrustError


class EngineError(BundleError):
    """The engine cannot load or run a model."""

    reason = "engine"


class EngineMemoryError(EngineError):
    """An allocation failed inside the engine; its heap is not to be trusted afterwards."""

    reason = "engine-memory"


class EngineMissingError(DeviceError):
    """No engine for the model's format is installed on this device."""

    reason = "engine-missing"


class TensorError(OperatorError):
    """A request's tensor does not fit the model: name, dtype, shape or range. The message says which and why."""

    reason = "tensor"


class RequestMemoryError(TensorError):
    """A request would need more memory than there is: it is refused before the engine runs."""

    reason = "request-memory"


class NotFoundError(TransportError):
    """The other side says explicitly that it has no such object."""

    reason = "not-found"


class UnreachableError(TransportError):
    """Nobody answered in time."""

    reason = "unreachable"


class RetryAfterError(TransportError):
    """The depot asks to come back later; `delay_s` is its wish in seconds."""

    reason = "retry-after"

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"the depot is busy; retry in {delay_s:g} s")
        self.delay_s = delay_s


class DamagedError(TransportError):
    """Bytes arrived whose hash is not the one the manifest pins."""

    reason = "damaged"


class DeltaError(TransportError):
    """A delta does not make the file it is for; the file itself is fetched instead."""

    reason = "delta"


class RefusedError(TrustError):
    """Signed metadata did not verify: wrong signer, expired, rolled back, frozen, too large."""

    reason = "refused"


class RolledBackError(RefusedError):
    """Older than what this device has verified before: a replay or a repository restored from an old copy."""

    reason = "rollback"


class ExpiredError(RefusedError):
    """Past its signed expiry: somebody holds newer metadata back, or nobody signs any more."""

    reason = "expired"


class SignatureError(RefusedError):
    """Not signed by enough of the keys entitled to sign it."""

    reason = "signature"


class TooLargeError(RefusedError):
    """More bytes than the signed length or than our own limit."""

    reason = "too-large"


class HashMismatchError(RefusedError):
    """Not the bytes whose hash was signed."""

    reason = "hash-mismatch"


class MissingTargetError(RefusedError):
    """No role entitled to it has signed such a target."""

    reason = "not-found"


class MalformedError(RefusedError):
    """Signed or fetched metadata that cannot be read or contradicts itself."""

    reason = "malformed"


class CertificateError(TrustError):
    """No certificate came that this device could use; `refusal` is what the enrollment service said, if it did."""

    reason = "certificate"

    def __init__(self, message: str, *, hint: str | None = None, refusal: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.refusal = refusal


class ConfigError(OperatorError):
    """The agent's configuration is wrong; names the field."""

    reason = "config"
