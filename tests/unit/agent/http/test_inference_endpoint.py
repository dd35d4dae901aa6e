"""What is answered on the event loop and what is not: by how long answers took, and by the size of this very body."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.makers import bundles

from edge_agent import Runtime
from edge_agent.http.app_state import AppState
from edge_agent.http.inference_endpoint import INLINE_BYTES, INLINE_US, InferenceEndpoint
from edge_agent.http.messages import HttpResponse, RequestHead


def request(rows: int) -> tuple[RequestHead, bytes]:
    """Return a binary request of so many rows."""
    blob = np.zeros((rows, 4), np.float32).tobytes()
    start = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,4],"parameters":{"binary_data_size":%d}}]}'
    start %= (rows, len(blob))
    headers = {b"inference-header-content-length": b"%d" % len(start)}
    return RequestHead("POST", b"/v2/models/linear/infer", headers), start + blob


def ask(endpoint: InferenceEndpoint, rows: int) -> HttpResponse | Awaitable[HttpResponse]:
    head, body = request(rows)
    return endpoint.answering(head)(body)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceEndpoint]:
    """An endpoint that has learned that small requests take 100 us."""
    bundles.make_bundle(tmp_path / "b")
    with Runtime.open(tmp_path / "b") as runtime:
        clock = itertools.count(10**12, 100_000)
        for module in ("runtime", "descent"):
            monkeypatch.setattr(f"edge_agent.inference.{module}._now_ns", lambda: next(clock))
        made = InferenceEndpoint(AppState(runtime=runtime), runtime)
        asyncio.run(learn(made))
        yield made


async def learn(endpoint: InferenceEndpoint) -> None:
    for _ in range(100):
        found = ask(endpoint, 4)
        if not isinstance(found, HttpResponse):
            await found


async def is_answered_at_once(endpoint: InferenceEndpoint, rows: int) -> bool:
    found = ask(endpoint, rows)
    response = found if isinstance(found, HttpResponse) else await found
    assert response.status == 200
    return found is response


def test_nothing_is_known_to_be_fast_until_it_was(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "b")
    with Runtime.open(tmp_path / "b") as runtime:
        fresh = InferenceEndpoint(AppState(runtime=runtime), runtime)
        assert not asyncio.run(is_answered_at_once(fresh, 1))


def test_a_usual_request_of_a_fast_model_is_answered_at_once(endpoint: InferenceEndpoint) -> None:
    assert asyncio.run(is_answered_at_once(endpoint, 4))
    assert asyncio.run(is_answered_at_once(endpoint, 1))


@pytest.mark.parametrize(("share", "at_once"), [(0.5, True), (0.9, True), (1.2, False), (4.0, False)])
def test_a_batch_that_would_take_long_leaves_the_loop_to_others(
    endpoint: InferenceEndpoint, share: float, at_once: bool
) -> None:
    _, usual = request(4)
    rows = int(share * len(usual) * INLINE_US / 100) // 16
    assert len(request(rows)[1]) < INLINE_BYTES
    assert asyncio.run(is_answered_at_once(endpoint, rows)) == at_once


def test_a_large_body_is_never_read_on_the_loop_however_fast_the_model(endpoint: InferenceEndpoint) -> None:
    endpoint._usual_us = 0.0
    assert asyncio.run(is_answered_at_once(endpoint, 1000))
    endpoint._usual_us = 0.0
    assert not asyncio.run(is_answered_at_once(endpoint, INLINE_BYTES // 16))
