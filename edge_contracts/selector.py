"""Conditions on facts of a device, as signed documents state them.

Identity (`board`, `architecture`, `device`, tags) is one of some values. What can be compared does not flap: the memory
the box has, not what is free; the CPUs it may use; versions. How a battery or the heat is right now is the device's own
business (`edge_agent.host.governor`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from edge_contracts.codec import Record
from edge_contracts.errors import ContractError
from edge_contracts.names import Text

Fact = Annotated[
    str,
    Meta(
        pattern=r"^(board|architecture|device|memory_mb|cpus|agent_version|(tag|engine)\.[A-Za-z0-9_.-]{1,64})(?!\n)$"
    ),
]

NUMBERS = frozenset({"memory_mb", "cpus"})


class Selector(Record, frozen=True, kw_only=True):
    """A condition on a device fact.

    Of `board`, `architecture`, `device` and tags (`tag.site`), any of `values` matches.
    Of `memory_mb` (megabytes of memory the agent may use at most), `cpus`, `agent_version` and the version of an engine
    (`engine.onnxruntime`), what is `at_least` and `below` matches, each if it is given. A device without the fact does
    not match.
    """

    fact: Fact
    values: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    at_least: Text | None = None
    below: Text | None = None


def check_selectors(selectors: Iterable[Selector], *, what: str) -> None:
    """Raise ContractError naming the selector that cannot be decided."""
    for number, selector in enumerate(selectors):
        subject = f"{what}.{number}.{selector.fact}"
        bounds = [bound for bound in (selector.at_least, selector.below) if bound is not None]
        if not _compares(selector.fact):
            if bounds or not selector.values:
                raise ContractError("needs values, and is not compared", subject=subject)
            continue
        if selector.values or not bounds:
            raise ContractError("needs at_least or below, and no values", subject=subject)
        for bound in bounds:
            if _key(selector.fact, bound) is None:
                kind = "a number" if selector.fact in NUMBERS else "a version"
                raise ContractError(f"{bound[:40]!r} is not {kind}", subject=subject)


def accepts(selector: Selector, value: str | None) -> bool:
    """Return whether a device whose fact has this value matches. None, or what cannot be read, does not."""
    if not _compares(selector.fact):
        return value is not None and value in selector.values
    key = None if value is None else _key(selector.fact, value)
    if key is None:
        return False
    low = None if selector.at_least is None else _key(selector.fact, selector.at_least)
    high = None if selector.below is None else _key(selector.fact, selector.below)
    return (low is None or key >= low) and (high is None or key < high) and not (low is None and high is None)


def described(selector: Selector) -> str:
    """Return the condition for people."""
    if selector.values:
        return ", ".join(selector.values[:5])
    bounds = {"at least": selector.at_least, "below": selector.below}
    return " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)


def _compares(fact: str) -> bool:
    return fact in NUMBERS or fact == "agent_version" or fact.startswith("engine.")


def _key(fact: str, text: str) -> tuple[float, ...] | None:
    """Return what sorts a number or a version (its leading numbers: 2.3 is 2.3.0, and 2.3.0rc1 too); None if it is none
    of the kind."""
    pattern = r"\d{1,9}(\.\d{1,9})?" if fact in NUMBERS else r"\d{1,9}(\.\d{1,9}){0,3}(?![0-9])"
    found = re.fullmatch(pattern, text) if fact in NUMBERS else re.match(pattern, text)
    if found is None:
        return None
    if fact in NUMBERS:
        return (float(found[0]),)
    numbers = [float(part) for part in found[0].split(".")]
    return tuple(numbers + [0.0] * (4 - len(numbers)))
