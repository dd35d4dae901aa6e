"""For all tests: how hypothesis runs, which tests share a process, what is collected where an extra is missing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests that share a fixture of their module in one of xdist's processes, which then builds it once."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
        if any(one.scope == "module" and one.baseid for definitions in fixtures for one in definitions[-1:]):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
