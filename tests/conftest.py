"""For all tests: how hypothesis runs, and what is collected where an extra is not installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from hypothesis import HealthCheck, settings

# No deadline, because shared machines stall; the same examples every time in CI.
settings.register_profile(
    "steady", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

NEEDS = {"torch": ("test_distill.py", "test_torch_export.py"), "skops": ("test_sklearn.py",)}
_HERE = Path(__file__).parent
collect_ignore = [
    str(path.relative_to(_HERE))
    for module, names in NEEDS.items()
    if importlib.util.find_spec(module) is None
    for name in names
    for path in _HERE.rglob(name)
]
