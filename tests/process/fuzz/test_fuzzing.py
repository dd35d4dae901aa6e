"""Every surface that reads bytes from outside holds: known attacks, regression cases, and a few seconds of fuzzing.

Each target has a process of its own, so that its limits on memory and time are the operating system's. `make fuzz`
does the same for ten minutes each.
"""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import pytest
from campaigns.fuzzing.campaign import fuzz
from campaigns.fuzzing.forms import mutated
from campaigns.fuzzing.surfaces import DOCUMENTS, ENVELOPES, TARGETS, Surface, surfaces_of
from campaigns.fuzzing.worker import REGRESSIONS, Findings
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.timeout(150)

SECONDS = 3 if importlib.util.find_spec("atheris") else 0
"""Where atheris has no wheel, what is known is still run."""

LIGHT = [surface for surface in (*DOCUMENTS, *ENVELOPES) if surface.name != "depot"]


@pytest.mark.parametrize("target", TARGETS)
def test_target_survives_known_attacks_and_a_short_fuzzing(target: str, tmp_path: Path) -> None:
    outcome = fuzz(target, SECONDS, tmp_path / "findings", tmp_path / "corpus")
    assert outcome.findings == []
    assert outcome.known > 0
    assert outcome.executions > 0 or not SECONDS


@pytest.mark.parametrize("surface", LIGHT, ids=lambda surface: surface.name)
@given(number=st.integers(min_value=0), junk=st.binary(max_size=40))
def test_an_example_with_changed_fields_raises_nothing_but_its_refusals(
    surface: Surface, number: int, junk: bytes
) -> None:
    choice = random.Random(number)
    words = ["name", "device", "kind", "x", "\udcff"]
    data = mutated(surface.form, choice.choice(surface.seeds()), choice, words, lambda part: part[:-3] + junk)
    run = surface.open(Path())
    try:
        run(junk if data is None else data)
    except surface.refusals:
        return


def test_every_regression_case_belongs_to_a_surface() -> None:
    known = {surface.name for target in TARGETS for surface in surfaces_of(target)}
    assert {path.name for path in REGRESSIONS.iterdir()} <= known


def test_finding_is_kept_once_for_each_place_it_comes_from(tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    for data in (b"1", b"2"):
        try:
            int("x")
        except ValueError as error:
            findings.keep("surface", data, error)
    findings.keep("surface", b"3", "too slow")
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line["error"] for line in lines] == ["ValueError", "too slow"]
    assert (tmp_path / "surface" / lines[0]["file"]).read_bytes() == b"1"
