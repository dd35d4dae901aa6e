"""Whose turn it is in a search: recipes by rank, those that come after another one only when that one holds, and
variations of what can win."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from support.parts import turns as parts
from support.parts.turns import SPACE, play, recipe

from edge_compression.evaluation.candidate import Candidate
from edge_compression.evaluation.sample_splits import EXACT_LEAST, EXACT_SAMPLES, exact_samples
from edge_compression.recipes.recipe import load_recipes
from edge_compression.search.base_selection import EXPLORE_EVERY, Tried, next_base
from edge_compression.search.study import Study

storage = parts.storage


def test_a_recipe_waits_for_the_one_it_comes_after(storage: str) -> None:
    recipes = [recipe("bold", 'after = "half"', 0.2), recipe("half"), recipe("other", keep=0.7)]
    study = Study(storage, "s", recipes)
    assert [play(study, holds=True) for _ in range(4)] == ["half", "bold", "other", None]


def test_a_recipe_is_not_tried_when_the_one_it_comes_after_does_not_hold(storage: str) -> None:
    study = Study(storage, "s", [recipe("half"), recipe("bold", 'after = "half"', 0.2), recipe("other", keep=0.7)])
    assert [play(study, holds=False) for _ in range(3)] == ["half", "other", None]
    assert play(Study(storage, "s", [recipe("half"), recipe("bold", 'after = "half"', 0.2)]), holds=True) is None


def test_of_the_core_nothing_is_left_when_the_budget_is_used_up(storage: str) -> None:
    study = Study(storage, "s", [recipe("extra", "rank = 1", 0.2), recipe("sure", "rank = 2\ncore = true", 0.7)])
    turn = study.take(vary=False, core_only=True)
    assert turn is not None
    assert turn.recipe.id == "sure"
    study.finish(turn, Candidate(recipe=turn.recipe), {}, [0.1, 0.5, 1.0])
    assert study.take(vary=False, core_only=True) is None
    assert play(study, holds=True) == "extra"


def test_what_ships_has_a_core_of_each_format_that_trains_nothing() -> None:
    for model_format in ("onnx", "tflite"):
        core = [one for one in load_recipes(model_format) if one.core]
        assert len(core) >= 4
        assert not any(one.trains for one in core)


def test_a_recipe_after_one_that_is_not_here_is_tried(storage: str) -> None:
    assert play(Study(storage, "s", [recipe("bold", 'after = "half"')]), holds=True) == "bold"


def test_every_recipe_that_ships_comes_after_one_that_is_tried_before() -> None:
    ids = [one.id for one in load_recipes("onnx")]
    for one in load_recipes("onnx"):
        assert one.after is None or ids.index(one.after) < ids.index(one.id)


def test_a_base_whose_values_are_all_tried_leaves_the_turn_to_others(storage: str) -> None:
    two = "[space.prune]\nmultiple = [8, 4]\n"
    study = Study(storage, "s", [recipe("few", "rank = 1", space=two), recipe("many", "rank = 2", 0.6, SPACE)])
    names = [play(study, holds=True, vary=True) or "" for _ in range(6)]
    assert names[:2] == ["few", "many"]
    assert sum(name.startswith("few-v") for name in names) == 1
    assert sum(name.startswith("many-v") for name in names) == 3


def test_what_could_not_be_built_is_not_varied(storage: str) -> None:
    study = Study(storage, "s", [recipe("broken", space=SPACE)])
    turn = study.take(vary=True)
    assert turn is not None
    candidate = Candidate(recipe=turn.recipe)
    candidate.drop_out("failed", "no channel can go")
    study.finish(turn, candidate, {}, None)
    assert study.take(vary=True) is None


def tried(base: str, drop: float, *, size: float = 0.5, within: bool = True) -> Tried:
    return Tried(base=base, costs=(drop, size, 1.0), within=within)


def test_bases_on_the_front_are_varied_more_often() -> None:
    known = [tried("a", 0.1), tried("a", 0.2, size=0.3), tried("b", 0.3)]  # a has both on the front, b none
    assert next_base(["b", "a"], known) == "a"
    assert next_base(["b", "a"], [*known, *[tried("a", 0.5)] * 8]) == "b"  # not forgotten


def test_a_base_that_was_never_within_is_looked_at_now_and_then() -> None:
    known = [tried("good", 0.1 * step, size=1.0 - 0.1 * step) for step in range(EXPLORE_EVERY - 1)]
    assert next_base(["good", "bad"], [*known, tried("bad", 5.0, within=False)]) == "bad"
    assert next_base(["good", "bad"], [*known[1:], tried("bad", 5.0, within=False)]) == "good"
    assert next_base(["bad"], [tried("bad", 5.0, within=False)]) == "bad"


def test_nothing_is_varied_where_nothing_was_judged() -> None:
    assert next_base(["a"], []) is None
    assert next_base(["a"], [Tried(base="a", costs=None)]) is None


def test_slow_models_have_fewer_samples_for_exact_arithmetic_but_some() -> None:
    assert exact_samples(EXACT_SAMPLES, 2.0, 0.0001) == EXACT_SAMPLES
    assert EXACT_LEAST < exact_samples(EXACT_SAMPLES, 2.0, 0.02) < EXACT_SAMPLES
    assert exact_samples(EXACT_SAMPLES, 2.0, 10.0) == EXACT_LEAST


def test_a_recipe_that_trains_says_so() -> None:
    trains = {one.id for one in load_recipes("onnx") if one.trains}
    assert trains == {one.id for one in load_recipes("onnx") if "distill" in one.id}


def test_a_search_killed_while_it_writes_a_trial_down_leaves_a_base_that_is_varied(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [recipe("half", space=SPACE)]
    study = Study(storage, "s", recipes)
    turn = study.take(vary=False)
    assert turn is not None
    turn.trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}:0")  # one that is no more

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study._study, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        study.finish(turn, Candidate(recipe=turn.recipe), {"drop": -1.0}, [0.1, 0.5, 1.0])
    again = Study(storage, "s", recipes)
    assert [record.id for record in again.finished()] == ["half"]
    varied = again.take(vary=True)
    assert varied is not None
    assert varied.varied


def test_two_searches_never_get_the_same_turn(storage: str) -> None:
    recipes = [recipe(f"recipe-{number}", f"rank = {number}") for number in range(12)]
    studies = [Study(storage, "s", recipes) for _ in range(2)]
    taken: list[tuple[int, str]] = []

    def take_all(study: Study) -> None:
        while (turn := study.take(vary=False)) is not None:
            taken.append((turn.trial.number, turn.recipe.id))

    searches = [threading.Thread(target=take_all, args=(study,)) for study in studies]
    for one in searches:
        one.start()
    for one in searches:
        one.join()
    assert len({number for number, _ in taken}) == len(taken)
    assert sorted(name for _, name in taken) == sorted(one.id for one in recipes)


def test_of_two_that_queued_the_same_recipe_the_first_tries_it_though_it_has_not_said_so_yet(storage: str) -> None:
    one, other = (Study(storage, "s", [recipe("half")]) for _ in range(2))
    for study in (one, other):  # both looked before the other had queued it
        study._study.enqueue_trial({}, user_attrs={"recipe": "half"})
    assert one._study.ask().number == 0
    assert other.take(vary=False) is None


def test_a_turn_that_another_search_took_for_lost_ends_without_an_error(storage: str) -> None:
    study = Study(storage, "s", [recipe("half")])
    turn = study.take(vary=False)
    assert turn is not None
    turn.trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}:0")
    other = Study(storage, "s", [recipe("half")])
    study.finish(turn, Candidate(recipe=turn.recipe), {"drop": -1.0}, [0.1, 0.5, 1.0])
    assert play(other, holds=True) == "half"
