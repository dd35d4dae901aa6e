"""Several gates at once: which of them have enough evidence, so that more gates do not mean more false alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping


def discoveries(log_e_values: Mapping[str, float], alpha: float) -> frozenset[str]:
    """Return the gates that are violated, at a false discovery rate of at most `alpha` over all of them.

    The e-BH procedure of Wang and Ramdas, "False discovery rate control with e-values", 2022: of K gates the k largest
    are taken, for the largest k whose k-th e-value is at least K / (k * alpha). It holds however the gates depend on
    each other. While all gates hold, anything is returned with a probability of at most `alpha`.
    """
    ordered = sorted(log_e_values, key=lambda gate: (-log_e_values[gate], gate))
    count = len(ordered)
    for taken in range(count, 0, -1):
        if log_e_values[ordered[taken - 1]] >= math.log(count / (taken * alpha)):
            return frozenset(ordered[:taken])
    return frozenset()
