"""What `test_replay.py` and `test_replay_processes.py` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.makers import bundles as bundle_maker

from edge_agent.capture.record import captured_request, encode_captured
from edge_agent.capture.ring import CaptureRing
from edge_agent.capture.sealing import PUBLIC_NAME, load_sealer, make_keys
from edge_agent.cli.agent import agent as agent_command
from edge_agent.inference.runtime import Runtime

RECORDS = 40


def run(*words: object) -> Result:
    return CliRunner().invoke(agent_command, [str(word) for word in words], catch_exceptions=True)


def report(result: Result) -> dict[str, Any]:
    assert result.exit_code in (0, 1), (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys, bundles, and captures of what release 1.0.0 answered."""
    folder = tmp_path_factory.mktemp("replay")
    make_keys(folder, None)
    old = bundle_maker.make_bundle(folder / "old", version="1.0.0")
    bundle_maker.make_bundle(folder / "wrong", version="1.1.0", models=[("fp32", bundle_maker.wrong_model())])
    bundle_maker.make_bundle(folder / "scaled", version="1.2.0", models=[("fp32", bundle_maker.scaled_model(0.5))])
    one_class = bundle_maker.WEIGHTS.copy()
    one_class[:, 2] = one_class[:, 0]  # never answers class 2: 0 is as likely and comes first
    bundle_maker.make_bundle(folder / "blind", version="1.3.0", models=[("fp32", bundle_maker.linear_model(one_class))])
    ring = CaptureRing(folder / "captures", load_sealer(folder / PUBLIC_NAME), 8 * 1024 * 1024)
    x, _ = bundle_maker.samples(RECORDS)
    with Runtime.open(old.folder) as runtime:
        for index in range(RECORDS):
            tensors = {"x": x[index : index + 1]}
            ring.write(encode_captured(captured_request(tensors, runtime.infer(tensors), 1.7e9 + index)))
    ring.close()
    return folder
