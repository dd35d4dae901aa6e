"""What `test_turns.py` and `test_turns_processes.py` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_compression.evaluation.candidate import Candidate
from edge_compression.recipes.recipe import Recipe, parse_recipe
from edge_compression.search.study import Study

SPACE = "[space.prune]\nkeep = { low = 0.2, high = 0.8 }\n"


def recipe(name: str, more: str = "", keep: float = 0.5, space: str = "") -> Recipe:
    return parse_recipe(f'summary = "s"\n{more}\n[[passes]]\npass = "prune"\nkeep = {keep}\n{space}', name)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def play(study: Study, *, holds: bool, vary: bool = False) -> str | None:
    """Take one turn and say what came of it; return the recipe's id."""
    turn = study.take(vary=vary)
    if turn is None:
        return None
    candidate = Candidate(recipe=turn.recipe)
    if not holds:
        candidate.drop_out("left out", "loses 9 points")
    study.finish(turn, candidate, {"drop": -1.0 if holds else 1.0}, [0.1, 0.5, 1.0])
    return turn.recipe.id
