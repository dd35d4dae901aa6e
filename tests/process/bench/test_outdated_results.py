"""Results whose code does something else by now are measured again, or declared with what has changed."""

from __future__ import annotations

from benchmarks.common import figures, recorded


def test_a_result_older_than_its_code_is_declared_and_no_other_is() -> None:
    declared = {one["result"] for one in recorded.declared()["stale"]}
    outdated = figures.outdated()
    undeclared = {result: files[:5] for result, files in outdated.items() if result not in declared}
    assert undeclared == {}, (
        "measured on other code: measure again, or say under [[stale]] of figures.toml what changed"
    )
    assert sorted(declared - outdated.keys()) == [], "measured on the code of today: no longer [[stale]]"
    assert all(one["changed"] for one in recorded.declared()["stale"])
