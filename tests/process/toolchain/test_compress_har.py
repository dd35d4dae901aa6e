"""Compression of a really trained model: the smartwatch activity network that the demo ships."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.bundle import open_bundle
from edge_compression.cli.compress import compress

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(180)  # a whole search
def test_watch_har_gets_an_eight_bit_variant_a_third_the_size_within_one_point(tmp_path: Path) -> None:
    for name in ("float", "int8-pc-bias-rr", "int8-pc-minmax"):
        recipe = ROOT / "compression" / "recipes" / f"{name}.toml"
        shutil.copy(recipe, tmp_path)
    task = ROOT / "edgewright" / "demo" / "data" / "watch_har.toml"
    words = [str(task), "--profile", "pi-4", "--max-drop", "1.0", "--out", str(tmp_path / "har"), "--json"]
    words += ["--variations", "0", "--budget", "10m"]
    done = CliRunner().invoke(compress, [*words, "--recipes", str(tmp_path)], catch_exceptions=False)
    report = json.loads(done.stdout)
    manifest = open_bundle(tmp_path / "har").manifest
    best = manifest.variant(report["eight_bit"]["best"])
    assert report["eight_bit"]["good"]
    assert best.size < 0.35 * report["original_size"]
    assert best.agreement is not None
    assert best.agreement > 0.95
    # Whatever this CPU makes of 8-bit weights, a rung never loses more than was allowed.
    assert all(one.drop is not None and one.drop <= 1.0 for one in manifest.variants)
