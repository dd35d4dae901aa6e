"""Distillation: a changed model is trained to answer as the original does, on samples that need no labels.

The loss is the squared difference of the answers, logits where there are any, as a share of their variance (Ba and
Caruana 2014, arXiv:1312.6184). Besides the samples, mixtures of two are answered by the original: matching a function
on more inputs than there are samples is what makes training pay (Beyer et al. 2022, arXiv:2106.05237). The original
answers each input once, before the training. What is trained is a `torch_graph`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_compression.torch_graph import TorchGraph

Array = NDArray[Any]

SEED = 0
HELD_OUT = 8
"""Of so many samples one is never trained on: it says whether the training helped."""

PROBE_STEPS = 8
"""Steps timed before the number of steps that fit into the time is fixed; the schedule depends on it."""

LEAST_SCALE = 1e-3
"""Steps are shares of a constant's own size (Shazeer and Stern 2018, arXiv:1804.04235): normalisation folded into
weights makes layers of very different scales. One of nearly nothing still has to be able to move."""

WARM_UP = 0.05
"""Share of the steps over which the rate rises: the refitted weights are a good start that a large step would spoil."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train: passes over samples and mixtures, seconds that steps are planned for, Adam's rate as a
    share of each constant's size, inputs of a step, and mixtures made of each sample."""

    epochs: int
    seconds: float
    rate: float
    batch: int
    mixtures: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of it: steps made and planned, the loss on samples held out before and after."""

    steps: int
    planned: int
    before: float
    after: float


def distil(student: TorchGraph, wanted: str, original: Callable[[Array], Array], x: Array, how: Training) -> Trained:
    """Train the student's parameters in place; they are as they were if the loss on held-out samples did not fall.

    `wanted` names the student's tensor that should be what `original` gives for a batch; `x` [N, ...] are inputs in the
    models' own dtype. Deterministic with one thread unless the time runs out.
    """
    import torch

    held = np.arange(len(x)) % HELD_OUT == 0 if len(x) >= 2 * HELD_OUT else np.zeros(len(x), dtype=bool)
    pool = with_mixtures(x[~held], how.mixtures)
    test = x[held] if held.any() else x
    inputs, targets = torch.from_numpy(pool), torch.from_numpy(original(pool))
    tested = (torch.from_numpy(np.ascontiguousarray(test)), torch.from_numpy(original(test)))
    spread = targets.var(dim=0).mean().clamp_min(1e-12)
    started = {name: value.detach().clone() for name, value in student.parameters.items()}

    def loss(batch: Any, target: Any) -> Any:
        return torch.square(student(batch, wanted) - target).mean() / spread

    before = _mean_loss(loss, tested, how.batch)
    steps, planned = _train(student, loss, (inputs, targets), how)
    after = _mean_loss(loss, tested, how.batch)
    if not after < before:
        with torch.no_grad():
            for name, value in student.parameters.items():
                value.copy_(started[name])
        after = before
    return Trained(steps=steps, planned=planned, before=before, after=after)


def with_mixtures(x: Array, each: int) -> Array:
    """Return the samples and, for float inputs, `each` mixtures of every sample with another."""
    if not np.issubdtype(x.dtype, np.floating) or len(x) < 2:
        return np.ascontiguousarray(x)
    random = np.random.default_rng(SEED)
    mixed = [x]
    for _ in range(each):
        share = random.random((len(x), *(1,) * (x.ndim - 1)), dtype=np.float32).astype(x.dtype)
        mixed.append(share * x + (1 - share) * x[random.permutation(len(x))])
    return np.concatenate(mixed)


def _train(student: TorchGraph, loss: Any, data: tuple[Any, Any], how: Training) -> tuple[int, int]:
    """Return (steps made, steps planned)."""
    import torch

    random = torch.Generator().manual_seed(SEED)
    scales = [max(float(value.detach().square().mean().sqrt()), LEAST_SCALE) for value in student.parameters.values()]
    groups = [{"params": [value]} for value in student.parameters.values()]
    optimiser = torch.optim.Adam(groups, lr=0.0)
    count = len(data[0])
    planned = total = how.epochs * -(-count // how.batch)
    order, place = torch.randperm(count, generator=random), 0
    started, step = time.monotonic(), 0
    while step < total:
        if place >= count:
            order, place = torch.randperm(count, generator=random), 0
        chosen = order[place : place + how.batch]
        place += how.batch
        rate = how.rate * _schedule(step / total)
        for group, scale in zip(optimiser.param_groups, scales, strict=True):
            group["lr"] = rate * scale
        optimiser.zero_grad(set_to_none=True)
        loss(data[0][chosen], data[1][chosen]).backward()
        optimiser.step()
        step += 1
        if step == PROBE_STEPS:
            total = min(planned, int(how.seconds / (time.monotonic() - started) * PROBE_STEPS))
        elif time.monotonic() - started > 1.5 * how.seconds:
            break
    return step, planned


def _schedule(progress: float) -> float:
    """Return the share of the rate: a short rise, then half a cosine down to nothing."""
    return float(min(1.0, progress / WARM_UP + 0.02) * 0.5 * (1.0 + np.cos(np.pi * progress)))


def _mean_loss(loss: Any, data: tuple[Any, Any], batch: int) -> float:
    import torch

    with torch.no_grad():
        parts = [(one, target) for one, target in zip(data[0].split(batch), data[1].split(batch), strict=True)]
        return sum(float(loss(one, target)) * len(one) for one, target in parts) / len(data[0])
