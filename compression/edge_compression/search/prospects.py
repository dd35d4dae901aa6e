"""What a recipe can win on this graph at best, by facts that cost a second, before anything is built. Pure.

Every figure is a bound on the good side: weights in the fewest bits a recipe may choose, arithmetic as fast as integers
can be, no loss. What cannot win even so is not built. Formats and passes that nothing is known of are always tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge_compression.evaluation.graph_profile import GraphFacts, OperatorShare
from edge_compression.evaluation.pareto import ENTRY, LATENCY_STEP, MEMORY_LEAST_MB, SIZE_LEAST, SIZE_STEP
from edge_compression.evaluation.rung_merit import LATENCY_LEAST_MS
from edge_compression.passes import (
    AnyPass,
    BiasCorrection,
    Compact,
    Distill,
    DynamicInt8,
    Equalize,
    Float16,
    FuseTransformer,
    MixedWeights,
    Prune,
    SecondOrderRounding,
    Simplify,
    Smooth,
    StaticInt8,
    UnpackAtLoad,
    WeightOnly,
)
from edge_compression.recipes.recipe import Recipe
from edge_contracts.limits import MIB

FASTEST_INTEGERS, FASTEST_HALVES, FUSED = 0.25, 0.5, 0.5
"""Of the time in float arithmetic what 8-bit integers take at best, with instructions for dot products; half precision;
and operators that were joined into one."""

STRUCTURE, PRUNED_STRUCTURE = 0.96, 0.5
"""Of the bytes that are no weights, what is left at best: the float recipe has compacted them already, and channels
that go take their biases along."""

NODE_BYTES = 40
"""Bytes that a quantized weight adds at least: its scale and the node that reads it."""

LEAST_OF_PRUNED = 0.05
"""Of the time and bytes of layers whose channels may go, what is left at best where the target says nothing of it."""

MATRICES = frozenset({"MatMul", "Gemm", "LSTM", "Attention", "MultiHeadAttention"})
COMPUTING = MATRICES | {"Conv", "ConvTranspose", "GRU", "RNN"}
HARMLESS = (Simplify, Compact, Equalize, Smooth, Distill, SecondOrderRounding, BiasCorrection, UnpackAtLoad)

NO_GAIN = "cannot win here"
"""How the reason of every recipe begins that was not built for what it could win at best."""


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """At best: `size` in bytes, `pace` relative to the original's latency; `lean`: weights may stay small in memory."""

    size: float
    pace: float
    lean: bool


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A judged candidate within the limit: its bytes, its latency relative to the original's, whether it was shown to
    lose anything, and whether its weights are small in memory, too."""

    id: str
    size: int
    pace: float
    loses: bool
    lean: bool


def prospect(recipe: Recipe, facts: GraphFacts) -> Prospect | None:
    """Return what a recipe can win at best, None when there is no saying."""
    best = _Best(bits=dict.fromkeys((one.operator for one in facts.operators), 1.0))
    for step in recipe.passes:
        if not isinstance(step, HARMLESS) and not _apply(step, best, facts):
            return None
    added = sum(one.weights * NODE_BYTES for one in facts.operators if best.bits[one.operator] < 1.0)
    weights = best.keep * sum(one.weight_bytes * best.bits[one.operator] for one in facts.operators)
    structure = best.structure * (facts.size - facts.weight_bytes) + added
    lean = best.lean and facts.weight_bytes - weights > MEMORY_LEAST_MB * MIB
    return Prospect(size=structure + weights, pace=_pace(facts.operators, best), lean=lean)


@dataclass(kw_only=True)
class _Best:
    """What is left at best: of each kind's weights in `bits`, of all weights `keep`, of the rest `structure`, of each
    kind's time `speed`."""

    bits: dict[str, float]
    speed: dict[str, float] = field(default_factory=lambda: defaultdict(lambda: 1.0))
    keep: float = 1.0
    structure: float = STRUCTURE
    lean: bool = False

    def store(self, kinds: Iterable[str], share: float) -> None:
        for kind in kinds:
            if kind in self.bits:
                self.bits[kind] = min(self.bits[kind], share)

    def quicken(self, kinds: Iterable[str], share: float) -> None:
        for kind in kinds:
            self.speed[kind] *= share


def _apply(step: AnyPass, best: _Best, facts: GraphFacts) -> bool:
    """Add what a pass wins at best; return whether that is known. A model in integers is not quantized again, and its
    channels are tied to its scales; trees have neither channels nor an 8-bit form."""
    if isinstance(step, WeightOnly | MixedWeights):
        share = 0.125 if isinstance(step, MixedWeights) else step.bits / 32
        best.store(_meant(step.operators, best.bits), share)
    elif not isinstance(step, StaticInt8 | DynamicInt8 | Float16 | Prune | FuseTransformer):
        return False
    elif facts.quantized or not any(one.operator in COMPUTING for one in facts.operators):
        return True
    elif isinstance(step, StaticInt8 | DynamicInt8):
        kinds = _meant(step.operators, best.bits)
        best.store(kinds, 0.25)
        best.quicken(kinds, FASTEST_INTEGERS)
        best.lean = True
    elif isinstance(step, Float16):
        best.store(best.bits, 0.5)
        best.quicken(best.bits, FASTEST_HALVES)
        best.lean = True
    elif isinstance(step, FuseTransformer):
        best.quicken(best.bits, FUSED)
    elif facts.weight_bytes:
        best.keep *= step.keep if step.of == "weights" else LEAST_OF_PRUNED
        best.structure *= PRUNED_STRUCTURE
        best.quicken(best.bits, LEAST_OF_PRUNED)
        best.lean = True
    return True


def _meant(operators: Sequence[str], known: Iterable[str]) -> set[str]:
    """Return the kinds that a pass quantizes: all where it names none. The engine runs matrix products under the names
    of what it made of them, too."""
    kinds = set(operators) or set(known)
    return kinds | MATRICES if "MatMul" in kinds else kinds


def _pace(operators: Sequence[OperatorShare], best: _Best) -> float:
    """Return the share of the time that is left. What the engine does between operators is not counted: a profile
    makes it look longer than it is."""
    total = sum(one.time for one in operators)
    return sum(one.time * best.speed[one.operator] for one in operators) / total if total > 0.0 else 1.0


def objection(found: Prospect, facts: GraphFacts, original_size: int, rivals: Iterable[Rival]) -> str | None:
    """Return why a recipe of this prospect cannot become a rung: nothing to win over the original, or over a candidate
    that is known to lose nothing; None when it may."""
    at_best = f"at best {found.size / original_size:.2f} of the bytes and {found.pace:.2f} of the latency"
    if not _smaller(found.size, original_size) and not _faster(found.pace, 1.0, facts.answer_ms):
        return f"{NO_GAIN}: {at_best}"
    for one in rivals:
        worse = _smaller(found.size, one.size) or _faster(found.pace, one.pace, facts.answer_ms)
        if not worse and not one.loses and (one.lean or not found.lean):
            return f"{NO_GAIN}: {at_best}, and {one.id} has that without a loss"
    return None


def _smaller(size: float, other: int) -> bool:
    least = max(size, ENTRY)
    return least * SIZE_STEP < other and least + SIZE_LEAST < other


def _faster(pace: float, other: float, answer_ms: float) -> bool:
    return pace * LATENCY_STEP < other and (other - pace) * answer_ms > LATENCY_LEAST_MS


def outlook(facts: GraphFacts) -> tuple[str, ...]:
    """Return in words where the time and the bytes are, and what integers can win."""
    return tuple(line for line in (_time_words(facts), _byte_words(facts)) if line)


def _time_words(facts: GraphFacts) -> str:
    first = max(facts.operators, key=lambda one: one.time, default=None)
    if first is None or first.time <= 0.0:
        return ""
    computing = sum(one.time for one in facts.operators if one.operator in COMPUTING)
    best = 1.0 / (1.0 - computing * (1.0 - FASTEST_INTEGERS))
    where = f"{first.time:.0%} of the time is in {first.nodes} {first.operator}"
    if first.depthwise >= 0.1:
        where += f" ({first.depthwise:.0%} depthwise, where integers win little)"
    if facts.quantized:
        return f"{where}; the model computes in integers already"
    if computing < 0.05:
        return f"{where}, which has no 8-bit form"
    return f"{where}: int8 compute can win at most {best:.1f} x"


def _byte_words(facts: GraphFacts) -> str:
    share = facts.weight_bytes / facts.size
    at_best = (STRUCTURE * (facts.size - facts.weight_bytes) + facts.weight_bytes / 4) / facts.size
    if not facts.weight_bytes:
        return "no weights that could be stored in fewer bits"
    return f"{share:.0%} of the bytes are weights: in 8 bits {at_best:.2f} of the file are left at best"


def arithmetic(passes: Sequence[AnyPass]) -> tuple[object, ...]:
    """Return what decides how fast a recipe's model is: its passes without those, and without the parameters, that only
    choose other numbers for the same operators."""
    found: list[object] = []
    for step in passes:
        if isinstance(step, StaticInt8):
            found.append((StaticInt8, step.form, step.activations, step.operators))
        elif isinstance(step, WeightOnly | MixedWeights):
            found.append(WeightOnly)
        elif not isinstance(step, HARMLESS):
            found.append(step)
        elif isinstance(step, UnpackAtLoad):
            found.append(UnpackAtLoad)
    return tuple(found)
