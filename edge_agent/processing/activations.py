"""Activation functions over the outputs of a model."""

from __future__ import annotations

import numpy as np

from edge_agent.inference.conformal import Floats


def softmax(logits: Floats) -> Floats:
    """Return probabilities [..., C] of logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
