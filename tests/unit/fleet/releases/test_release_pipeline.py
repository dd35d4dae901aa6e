"""A pipeline whose graph does not hold is never signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.makers.pipelines import changed, graph_of, make_chain
from support.sites.update_site import UpdateSite

from edge_contracts.errors import ContractError
from edge_fleet.releases.release import release, versions


def test_a_pipeline_is_released_with_the_bundles_of_its_nodes(tmp_path: Path) -> None:
    site = UpdateSite(tmp_path)
    released = release(site.fleet, make_chain(tmp_path / "made").folder, site.now)
    assert released.new
    assert versions(site.fleet.read(site.now), "linear") == ["2.0.0"]


def test_a_pipeline_whose_nodes_do_not_fit_is_refused_with_the_node_named(tmp_path: Path) -> None:
    site, chain = UpdateSite(tmp_path), make_chain(tmp_path / "made")
    nodes = [
        one | ({"inputs": {"y": "input/x"}} if one["name"] == "second" else {}) for one in graph_of(chain)["nodes"]
    ]
    broken = changed(chain, nodes=nodes)
    with pytest.raises(ContractError, match=r"nodes\[second\]\.inputs\[y\]"):
        release(site.fleet, broken.folder, site.now)
    assert versions(site.fleet.read(site.now), "linear") == []


def test_a_pipeline_in_a_circle_is_refused_with_its_nodes_named(tmp_path: Path) -> None:
    site, chain = UpdateSite(tmp_path), make_chain(tmp_path / "made")
    nodes = [
        one | ({"inputs": {"x": "second/z"}} if one["name"] == "first" else {}) for one in graph_of(chain)["nodes"]
    ]
    with pytest.raises(ContractError, match="wait for each other"):
        release(site.fleet, changed(chain, nodes=nodes).folder, site.now)
