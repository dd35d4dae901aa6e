"""One root for every error Edgewright raises on purpose, with a branch for each party that can be at fault.

A caller that wants to know *what to do* catches a branch; a caller that wants to *report* reads `reason` (a stable
code for machines), the message (for people), `subject` (the field, file or topic) and `hint` (what to do next).
"""

from __future__ import annotations

from typing import ClassVar

from edge_contracts import __version__


class EdgewrightError(Exception):
    """Root of all deliberate errors. `reason` is a stable machine-readable code."""

    reason: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, subject: str | None = None, hint: str | None = None) -> None:
        super().__init__(message if subject is None else f"{subject}: {message}")
        self.subject = subject
        self.hint = hint


class BundleError(EdgewrightError):
    """The model, its bundle or its data is at fault; another bundle may work."""

    reason = "bundle"
    exit_code = 3


class TransportError(EdgewrightError):
    """Bytes did not arrive, or arrived damaged; trying again later may work."""

    reason = "transport"
    exit_code = 4


class TrustError(EdgewrightError):
    """Bytes arrived that nobody entitled to has signed, or that are older than what is already known. Never retried
    with the same bytes, never served."""

    reason = "untrusted"
    exit_code = 5


class DeviceError(EdgewrightError):
    """This device cannot do it: memory, disk, engine, architecture, permissions."""

    reason = "device"
    exit_code = 6


class OperatorError(EdgewrightError):
    """A person or a configuration asked for something impossible; the message names the field."""

    reason = "operator"
    exit_code = 2


class ContractError(EdgewrightError):
    """Bytes that do not follow a contract: wrong type, missing field, over a limit. Names the field in `subject`."""

    reason = "malformed"
    exit_code = 3


class MissingExtraError(OperatorError):
    """A part of the product needs an optional dependency group that is not installed."""

    reason = "missing-extra"

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(
            f"needs the extra {extra!r}: {module} is not installed",
            hint=f"from a checkout: pip install '.[{extra}]'; from a wheel: pip install "
            f"'./edgewright-{__version__}-py3-none-any.whl[{extra}]'",
        )
