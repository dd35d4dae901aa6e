"""What `test_turns.py` tests, where it takes a real process or a wait."""

from __future__ import annotations

from support.parts import turns as parts
from support.parts.turns import SPACE, play, recipe

from edge_compression.search.base_selection import EXPLORE_EVERY
from edge_compression.search.study import Study

storage = parts.storage


def test_variations_are_of_the_recipe_that_held(storage: str) -> None:
    bad, good = recipe("bad", "rank = 1", space=SPACE), recipe("good", "rank = 2", keep=0.6, space=SPACE)
    study = Study(storage, "s", [bad, good])
    assert [play(study, holds=False), play(study, holds=True)] == ["bad", "good"]
    names = [play(study, holds=True, vary=True) or "" for _ in range(EXPLORE_EVERY - 2)]
    assert all(name.startswith("good-v") for name in names)
    assert play(study, holds=False) is None


def test_a_search_ends_when_everything_was_tried(storage: str) -> None:
    study = Study(storage, "s", [recipe("few", space="[space.prune]\nmultiple = [8, 4]\n")])
    assert [(play(study, holds=True, vary=True) or "")[:5] for _ in range(4)] == ["few", "few-v", "", ""]
