"""A bundle that says what its inputs and answers looked like, for tests of drift."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from support.makers import bundles

from edge_agent.bundle import Bundle
from edge_agent.ports import Array
from edge_contracts.reference import AnswerReference, Feature, Histogram, InputReference, Statistic

EDGES = (-0.6, -0.2, 0.2, 0.6)
MODEL = bundles.linear_model()


def make_referenced_bundle(folder: Path, **options: Any) -> Bundle:
    """Make a bundle of one variant whose references are those of 1,000 of its own samples; see `bundle_maker`."""
    x, y = bundles.samples(1000, seed=5)
    features = [_feature(x.mean(axis=1), "mean"), _feature(x[:, 2], "element", 2)]
    logits = (x @ bundles.WEIGHTS).astype(np.float64)
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    answers = AnswerReference(
        model_sha256=hashlib.sha256(MODEL).hexdigest(),
        samples=1000,
        confidence=_histogram((exp / exp.sum(axis=1, keepdims=True)).max(axis=1), (0.7, 0.9, 0.97)),
        classes=tuple(map(int, np.bincount(y, minlength=3))),
    )
    return bundles.make_bundle(
        folder,
        models=[("fp32", MODEL)],
        variant={"reference": answers},
        reference=InputReference(samples=1000, features=tuple(features)),
        **options,
    )


def _histogram(values: Array, edges: tuple[float, ...]) -> Histogram:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Histogram(edges=edges, counts=tuple(map(int, counts)))


def _feature(values: Array, statistic: Statistic, index: int | None = None) -> Feature:
    return Feature(input="x", statistic=statistic, index=index, histogram=_histogram(values, EDGES))
