"""Every figure that README and the pages of measurements state follows from `benchmarks/results`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.agent import serving_report
from benchmarks.common import figures, recorded
from benchmarks.statistics import conformal_report, drift_report
from benchmarks.toolchain import corpus_table, peer_table

DOCS = recorded.ROOT / "docs"
PAGES = ("README.md", "docs/measurements.md")


def test_each_page_of_a_report_is_what_its_results_make() -> None:
    assert (DOCS / "benchmarks-serving.md").read_text() == serving_report.page()
    assert (DOCS / "benchmarks-certainty.md").read_text() == conformal_report.page()


def test_the_drift_page_and_its_pictures_are_what_their_results_make() -> None:
    found = json.loads(drift_report.RESULTS.read_bytes())
    assert (DOCS / "benchmarks-drift.md").read_text() == drift_report.page(found)
    drawn = drift_report.pictures(found)
    assert drawn
    assert {name: (DOCS / "pictures" / name).read_text() for name in drawn} == drawn


def test_the_compression_page_is_what_its_results_make() -> None:
    results = [json.loads((recorded.RESULTS / name).read_bytes()) for name in ("compression.json", "peers.json")]
    made = "\n".join([corpus_table.section(results[0]), peer_table.section(results[1])])
    text = (DOCS / "benchmarks.md").read_text()
    assert corpus_table.BEGIN in text
    assert text == corpus_table.placed(text, made)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_states_each_figure_as_the_results_have_it(page: str) -> None:
    assert len(figures.statements(page)) >= 5
    assert figures.missing(page) == []


@pytest.mark.parametrize("page", PAGES)
def test_the_page_states_no_figure_that_follows_from_no_result(page: str) -> None:
    assert figures.unaccounted(page) == []


def test_the_table_of_compression_has_each_variant_of_each_ladder_and_no_other() -> None:
    shown = re.findall(r"^\| \w+ \| [\d,]+ \| .*$", (DOCS / "measurements.md").read_text(), re.MULTILINE)
    assert shown == figures.compression_rows()


def test_the_page_says_at_which_commit_each_result_was_recorded() -> None:
    assert figures.freshness_table() in (DOCS / "measurements.md").read_text()


def test_every_result_is_recorded_and_says_which_code_it_depends_on() -> None:
    assert sorted(recorded.recorded()) == recorded.results()
    assert set(recorded.results()) <= set(recorded.declared()["code"])


def test_no_result_was_changed_after_it_was_recorded() -> None:
    then = {result: one["sha256"] for result, one in recorded.recorded().items()}
    assert then == {result: recorded.sha256(result) for result in then}, (
        "measured again? python benchmarks/common/recorded.py RESULT"
    )


def test_a_figure_edited_by_hand_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (recorded.ROOT / "README.md").read_text()
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    for stated in figures.statements("README.md"):
        edited = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), stated, count=1)
        (tmp_path / "README.md").write_text(text.replace(stated, edited))
        assert figures.missing("README.md") == [stated]
        assert len(figures.unaccounted("README.md")) == 1


@pytest.mark.parametrize(
    ("result", "change", "missing"),
    [
        ("power-cuts", lambda one: one.update(points=7), "7 cuts"),
        ("agent-memory", lambda one: one["medians_mb"].update(supervisor_rss=99.29), "99.3 MB RSS"),
    ],
)
def test_a_result_edited_by_hand_is_found(
    monkeypatch: pytest.MonkeyPatch, result: str, change: Any, missing: str
) -> None:
    read = figures._result

    def edited(name: str) -> Any:
        found = read(name)
        if name == result:
            change(found)
        return found

    monkeypatch.setattr(figures, "_result", edited)
    assert any(missing in one for one in figures.missing("README.md"))


SOURCE = '''"""A module."""

LIMIT = 3


def decide(x: int) -> bool:
    """Say whether x fits."""
    if x > LIMIT:
        raise ValueError(f"x is {x}: too large")
    return x == 2
'''


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("Say whether x fits.", "Tell it.", True),
        ("too large", "over the limit", True),
        ("x: int", "x: float", True),
        ("LIMIT = 3\n", "LIMIT = 3  # a bound\n", True),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("x > LIMIT", "x >= LIMIT", False),
        ("x == 2", "x == 2.0", False),
        ("    return x == 2\n", "", False),
        ("def decide", "def choose", False),
    ],
)
def test_words_do_not_make_a_result_outdated_and_decisions_do(before: str, after: str, same: bool) -> None:
    assert before in SOURCE
    assert (recorded.digest(SOURCE.replace(before, after)) == recorded.digest(SOURCE)) is same


def test_a_digest_is_the_same_on_every_python() -> None:
    assert recorded.digest(SOURCE) == "d8e9634504132258"
