"""Every combination of settings that a sweep asks for, each a subject of its own in the report. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import msgspec

from edge_bench.protocol import RunnerPlan
from edge_contracts.errors import OperatorError

MOST = 64
"""Combinations at most: each is a process that waits for its turns."""

_SWITCH = {"on": True, "off": False}


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise OperatorError(f"{text[:40]!r} is not a number of threads from 1 to 256", subject="--sweep threads")
    return int(text)


def _optimize(text: str) -> bool:
    if text not in _SWITCH:
        raise OperatorError(f"{text[:40]!r} is neither on nor off", subject="--sweep optimize")
    return _SWITCH[text]


SETTINGS: Mapping[str, Callable[[str], int | bool]] = {"threads": _threads, "optimize": _optimize}
"""What can be swept: the engine's threads, and whether it optimizes the graph."""


def parse_sweep(words: Sequence[str]) -> dict[str, list[int | bool]]:
    """Return the values of each setting of `NAME=A,B`. Raises OperatorError."""
    found: dict[str, list[int | bool]] = {}
    for word in words:
        name, _, values = word.partition("=")
        if name not in SETTINGS or not values:
            hint = "NAME=A,B with NAME one of " + ", ".join(SETTINGS)
            raise OperatorError(f"{word[:80]!r} cannot be swept", subject="--sweep", hint=hint)
        if name in found:
            raise OperatorError(f"{name} is given twice", subject="--sweep")
        found[name] = [SETTINGS[name](value.strip()) for value in values.split(",")]
    return found


def swept(plans: Mapping[str, RunnerPlan], sweep: Mapping[str, Sequence[int | bool]]) -> dict[str, RunnerPlan]:
    """Return a plan for every model and combination, named `model threads=2 optimize=off`. Raises OperatorError."""
    made = {}
    for name, plan in plans.items():
        for values in product(*sweep.values()):
            chosen = dict(zip(sweep, values, strict=True))
            label = " ".join(f"{key}={_word(value)}" for key, value in chosen.items())
            made[f"{name} {label}".strip()] = msgspec.structs.replace(plan, **chosen)
    if len(made) > MOST:
        raise OperatorError(f"{len(made)} combinations, {MOST} at most", subject="--sweep")
    return made


def _word(value: int | bool) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
