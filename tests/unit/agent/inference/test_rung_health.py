"""The ladder: its order, who rests and for how long."""

import pytest
from msgspec.structs import replace
from support.makers import bundles

from edge_agent.fallback_ladder import LadderRelease, build_ladder
from edge_agent.inference.rungs.health import (
    FIRST_REST_S,
    LONGEST_REST_S,
    PATIENCE,
    WELL,
    Health,
    failed,
    preferred_order,
    walk,
)


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    def release(role, version, usable=None):
        made = bundles.make_bundle(tmp_path_factory.mktemp("ladder") / version, version=version)
        return LadderRelease(
            role=role,
            folder=str(made.folder),
            manifest_sha256=made.manifest_sha256,
            manifest=made.manifest,
            usable=usable,
        )

    return [release("active", "3.0.0"), release("last-good", "2.0.0", ("small",)), release("factory", "1.0.0")]


def test_active_variants_come_first_then_one_of_each_older_release(releases):
    assert [rung.served_by for rung in build_ladder(releases)] == [
        "active:3.0.0/fp32",
        "active:3.0.0/small",
        "last-good:2.0.0/small",
        "factory:1.0.0/fp32",
    ]


def test_a_release_in_two_roles_gives_its_rungs_once(releases):
    active, _, _ = releases
    assert len(build_ladder([active, active, active])) == 2
    assert build_ladder([]) == ()


def test_a_release_without_usable_variants_gives_no_rung(releases):
    active = releases[0]
    none = LadderRelease(role="active", folder="f", manifest_sha256="0" * 64, manifest=active.manifest, usable=())
    assert [rung.role for rung in build_ladder([none, active])] == ["active"]


def test_a_preferred_variant_falls_back_to_the_rest_of_its_release_in_the_order_of_the_ladder(releases):
    ladder = build_ladder(releases)
    middle = (ladder[0], replace(ladder[1], variant="middle"), *ladder[1:])
    assert preferred_order(middle, "middle") == (1, 0, 2, 3, 4)
    assert preferred_order(ladder, None) == (0, 1, 2, 3)
    assert preferred_order(ladder, "small") == (1, 0, 2, 3)
    assert preferred_order(ladder, "unknown") == (0, 1, 2, 3)
    assert preferred_order((), "small") == ()


def test_patience_then_rest_then_probation():
    health = WELL
    for _ in range(PATIENCE - 1):
        health = failed(health, 100.0, hard=False)
        assert health.rest_until == 0.0
    health = failed(health, 100.0, hard=False)
    assert health.rest_until == 100.0 + FIRST_REST_S
    health = failed(health, 200.0, hard=False)
    assert health.rest_until == 200.0 + 2 * FIRST_REST_S


def test_a_rung_that_does_not_load_rests_at_once_and_never_longer_than_the_limit():
    health = WELL
    for _ in range(40):
        health = failed(health, 0.0, hard=True)
        assert FIRST_REST_S <= health.rest_until <= LONGEST_REST_S
    assert health.rest_until == LONGEST_REST_S


def test_the_walk_leaves_out_who_rests_and_takes_it_back():
    resting = failed(WELL, 10.0, hard=True)
    assert list(walk((0, 1, 2), [WELL, resting, WELL], 10.5)) == [0, 2]
    assert list(walk((0, 1, 2), [WELL, resting, WELL], 11.0)) == [0, 1, 2]


def test_what_a_failure_leaves_figure_by_figure():
    assert failed(WELL, 100.0, hard=False) == Health(failures=1)
    assert failed(WELL, 100.0, hard=True) == Health(failures=2, rest_until=101.0, rests=1, hard=True)
    third = failed(Health(failures=2, rests=3), 100.0, hard=False)
    assert third == Health(failures=2, rest_until=108.0, rests=4)
    health = WELL
    for _ in range(40):
        health = failed(health, 0.0, hard=True)
    assert (health.rest_until, health.rests) == (300.0, 32)


def test_a_variant_of_an_older_release_is_never_preferred(releases):
    active, *older = build_ladder(releases)[::2]
    assert preferred_order((active, *older), "small") == (0, 1)
    assert [rung.variant for rung in (active, *older)] == ["fp32", "small"]
