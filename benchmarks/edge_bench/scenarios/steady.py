"""When warming up is over: the medians of the last windows neither fall nor scatter. Pure."""

from __future__ import annotations

from collections.abc import Sequence

WINDOWS = 3
"""Windows that have to agree."""

SCATTER = 0.05
"""How far apart the medians of those windows may lie, of the smallest."""

MOST_WINDOWS = 40
"""Windows after which a model is taken as it is, and the report says that it never became steady."""


def steady(medians: Sequence[float]) -> bool:
    """Tell whether the last windows agree, and are not all faster than every window before: then it still warms up."""
    if len(medians) < WINDOWS:
        return False
    last, before = medians[-WINDOWS:], medians[:-WINDOWS]
    if max(last) > min(last) * (1.0 + SCATTER):
        return False
    return not before or max(last) > min(before) * (1.0 - SCATTER)
