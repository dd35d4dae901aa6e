"""What `test_pipeline_engine.py` and `test_pipeline_engine_processes.py` share."""

from __future__ import annotations

from typing import Any

import pytest
from support.makers.pipelines import (
    make_camera,
)

from edge_agent.answer import Answer
from edge_agent.bundle import Bundle


def node(answer: Answer, name: str) -> Any:
    """Return what one node did."""
    return next(one for one in answer.nodes if one.node == name)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The detector with its classifier; not to be changed."""
    return make_camera(tmp_path_factory.mktemp("camera"))
