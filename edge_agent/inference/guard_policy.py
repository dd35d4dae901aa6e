"""The guards' decisions: may this input be fed, may this answer be given, is it like what the model was made for?

Decisions over a few numbers only. Measuring the arrays, and acting on a verdict, is in `edge_agent.inference.guards`
and `edge_agent.inference.rungs.rung`.
"""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

from edge_contracts.guards import FeatureGuard, InputGuard, OutputGuard
from edge_contracts.reference import Confidence
from edge_contracts.tensors import Infinite

Action = Literal["pass", "warn", "clip", "reject", "fallback"]


class Spread(Struct, frozen=True, kw_only=True):
    """The smallest and largest number of a tensor; NaN in both if it holds a NaN, infinities as they are."""

    minimum: float
    maximum: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.minimum) and math.isfinite(self.maximum)


class GuardVerdict(Struct, frozen=True, kw_only=True):
    """What to do, and why in words for the answer's warnings or the error."""

    action: Action
    text: str = ""


PASS = GuardVerdict(action="pass")


def judge_input(guard: InputGuard, spread: Spread) -> GuardVerdict:
    """Judge a tensor about to be fed. Not-finite numbers are judged first: they have no place in a range."""
    if not spread.finite:
        return GuardVerdict(action=guard.not_finite, text="contains NaN or infinity")
    text = _outside(spread, guard.minimum, guard.maximum)
    return PASS if text is None else GuardVerdict(action=guard.out_of_range, text=text)


def judge_feature(guard: FeatureGuard, spread: Spread, unknown: float | None) -> GuardVerdict:
    """Judge the numbers of one feature; `unknown` is one that is none of its categories, None if there is none."""
    what = guard.name or f"feature {guard.index}"
    if unknown is not None:
        return GuardVerdict(action=guard.action, text=f"{what}: {unknown:.6g} is not one of its categories")
    text = _outside(spread, guard.minimum, guard.maximum)
    return PASS if text is None else GuardVerdict(action=guard.action, text=f"{what}: {text}")


def judge_output(guard: OutputGuard, spread: Spread, *, infinite: Infinite | None = None) -> GuardVerdict:
    """Judge an answer: one that is not finite or out of range is no answer and goes down the ladder. `infinite`
    says which infinite numbers are answers of this output."""
    if not (spread.finite or _allowed(spread, infinite)):
        return GuardVerdict(action="fallback", text="answer contains NaN or infinity")
    text = _outside(spread, guard.minimum, guard.maximum)
    return PASS if text is None else GuardVerdict(action="fallback", text=text)


_INFINITE: dict[str, tuple[float, ...]] = {
    "-inf": (-math.inf,),
    "inf": (math.inf,),
    "both": (-math.inf, math.inf),
}


def _allowed(spread: Spread, infinite: Infinite | None) -> bool:
    """Return whether all that is not finite may be there; a NaN never may."""
    answers = _INFINITE.get(infinite or "", ())
    return all(math.isfinite(end) or end in answers for end in (spread.minimum, spread.maximum))


def judge_confidence(confidence: Confidence, *, energy: float, max_softmax: float) -> GuardVerdict:
    """Judge how like the calibration data a sample looks, from its logits' energy and its largest probability.

    Only ever a warning: what to do about an unusual sample is the application's decision.
    """
    if confidence.energy is not None and energy > confidence.energy:
        return GuardVerdict(
            action="warn", text=f"out of distribution: energy {energy:.4g} over {confidence.energy:.4g}"
        )
    if confidence.max_softmax is not None and max_softmax < confidence.max_softmax:
        text = f"out of distribution: max softmax {max_softmax:.4g} below {confidence.max_softmax:.4g}"
        return GuardVerdict(action="warn", text=text)
    return PASS


def _outside(spread: Spread, minimum: float | None, maximum: float | None) -> str | None:
    if minimum is not None and spread.minimum < minimum:
        return f"{spread.minimum:.6g} is below the minimum {minimum:.6g}"
    if maximum is not None and spread.maximum > maximum:
        return f"{spread.maximum:.6g} is above the maximum {maximum:.6g}"
    return None
