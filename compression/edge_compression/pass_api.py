"""What every pass is given and gives back. A pass is a small frozen record whose fields are its parameters in a recipe.

Models travel between passes as bytes in their own format, so that "this changed nothing" is a comparison of bytes and
a chain can be resumed after any pass. The passes are listed in `edge_compression.passes`;
`edge_compression.search.build_process` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from edge_contracts.errors import BundleError
from edge_contracts.manifest import Format

EIGHT_BIT_FLOOR = "eight_bit_floor"
"""In a pass's changes: the share of the model's bytes that its weights have in 8 bits, where they were in 16 before."""

Feeds = dict[str, Any]
Changes = dict[str, str | int | float]


LEFT_OUT = "left_out"
"""In a pass's changes: why it was left out of its recipe."""

IDLE = "idle"
"""In the same entry: it was left out because there was nothing for it to do, which is no news."""

SAME_VALUE, SAME_FROM, SAME_BELOW = "same_value", "same_from", "same_below"
"""In a pass's changes: a parameter of it, and the values (the first included, the second not) with which it would have
done the same to this model."""


class PassError(BundleError):
    """A pass cannot be applied to this model; the message says why."""

    reason = "pass"


class NothingToDoError(PassError):
    """A pass finds nothing in this model that it would change: no failure of its recipe as long as another of the
    recipe's passes does its work."""

    reason = "nothing-to-do"


class ImpossibleError(PassError):
    """A pass cannot be applied to this model, `whatever` values these parameters of it have, and with no smaller value
    of its parameter `less`: it is not asked again."""

    reason = "impossible"

    def __init__(self, text: str, *, whatever: Sequence[str] = (), less: str = "", hint: str | None = None) -> None:
        super().__init__(text, hint=hint)
        self.whatever, self.less = tuple(whatever), less


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a pass may use besides the model.

    `calibration` yields feeds of one sample each, in the model's own dtype, and may be called again for another
    round. `unquantized` is the model as it was before the first quantizing pass of the recipe, `original` as it was
    before the first pass; None where a pass is used alone. `training` is like `calibration` over samples that are
    there to recover quality; None when the task has none. `seconds_left` tells how long the whole search may still try;
    None where nobody waits. `constants` are inputs that always have one value, in the model's own dtype and with the
    batch, by name.
    """

    calibration: Callable[[], Iterator[Feeds]]
    unquantized: bytes
    original: bytes | None = None
    training: Callable[[], Iterator[Feeds]] | None = None
    seconds_left: Callable[[], float] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A pass's result: the model and, in numbers or words, what became of it."""

    model: bytes
    changed: Changes


class Pass(Protocol):
    """One step of a recipe. `quantizes`: its result no longer serves as the float reference of later passes. A pass
    with a class variable `refines` only betters what others made: where it fails it is left out of its recipe."""

    format: ClassVar[Format]
    quantizes: ClassVar[bool]

    def apply(self, model: bytes, context: Context) -> Applied:
        """Return the changed model; the given bytes are never altered. Raises PassError."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A pass that can tell before any work of its recipe whether its own will be possible."""

    def foresee(self, model: bytes, context: Context) -> None:
        """Raise PassError or MissingExtraError if not; `model` is what the recipe begins with."""
        ...
