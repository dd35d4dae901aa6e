"""How many channels each site keeps: steps of equal loss for what they save, until the target is reached.

Pure decisions over measured losses. Measuring them and removing the channels is in `passes.prune`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Kept = tuple[int, ...]
"""Units left at each site, in the sites' order."""

MOST_LEVELS = 8
"""Sizes tried of one site: more say little that their neighbors do not."""


def levels(units: int, multiple: int) -> tuple[int, ...]:
    """Return the numbers of units worth keeping, largest first: multiples that kernels fill their registers with, finer
    ones only for sites of less than four such multiples."""
    step = min(multiple, max(1, units // 4))
    every = list(range(step * ((units - 1) // step), 0, -step))
    count = min(MOST_LEVELS, len(every))
    return tuple(every[round(index * (len(every) - 1) / max(1, count - 1))] for index in range(count))


def path(units: Kept, losses: Sequence[Mapping[int, float]], cost: Callable[[Kept], float]) -> Iterator[Kept]:
    """Yield ever smaller plans. Each step takes, of all sites and levels, what loses least for what it saves; losses of
    several sites are taken to add up, a smaller site never to lose less than a larger one."""
    now = units
    known = [{units[site]: 0.0, **_rising(found)} for site, found in enumerate(losses)]
    while True:
        best, best_price = None, float("inf")
        before = cost(now)
        for site, found in enumerate(known):
            for kept in (level for level in found if level < now[site]):
                step = (*now[:site], kept, *now[site + 1 :])
                saved = before - cost(step)
                price = (found[kept] - found[now[site]]) / saved if saved > 0 else float("inf")
                if price < best_price:
                    best, best_price = step, price
        if best is None:
            return
        now = best
        yield now


def _rising(losses: Mapping[int, float]) -> dict[int, float]:
    found, most = {}, 0.0
    for kept in sorted(losses, reverse=True):
        most = max(most, losses[kept])
        found[kept] = most
    return found


@dataclass(kw_only=True)
class ShareTarget:
    """What share `keep` a plan may leave, and which shares were `accepted` at most and `rejected` at least: targets in
    between ask for the same plan."""

    keep: float
    share: Callable[[Kept], float]
    accepted: float = 0.0
    rejected: float = 1.0

    def fits(self, plan: Kept) -> bool:
        """Return whether a plan leaves no more than the target."""
        left = self.share(plan)
        if left <= self.keep:
            self.accepted = max(self.accepted, left)
            return True
        self.rejected = min(self.rejected, left)
        return False


def first_within(plans: Sequence[Kept], fits: Callable[[Kept], bool]) -> Kept | None:
    """Return the largest plan that fits, by bisection over ever smaller ones; None if not even the last does."""
    if not plans or not fits(plans[-1]):
        return None
    low, high = 0, len(plans) - 1
    while low < high:
        middle = (low + high) // 2
        if fits(plans[middle]):
            high = middle
        else:
            low = middle + 1
    return plans[high]


def grown(plan: Kept, losses: Sequence[Mapping[int, float]], fits: Callable[[Kept], bool]) -> Kept:
    """Return a plan with sites one level larger as long as it fits, those first that win most: steps of `path` may be
    large, and what a plan leaves of its target would be wasted."""
    while True:
        wins = {}
        for site, found in enumerate(losses):
            larger = min((level for level in found if level > plan[site]), default=None)
            if larger is not None:
                wins[(*plan[:site], larger, *plan[site + 1 :])] = found[plan[site]] - found[larger]
        step = next((one for one in sorted(wins, key=lambda one: -wins[one]) if fits(one)), None)
        if step is None:
            return plan
        plan = step
