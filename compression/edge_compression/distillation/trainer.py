"""Distillation: a changed model is trained to answer as the original does, on samples that need no labels.

The loss is the squared difference of the answers, logits where there are any, as a share of their variance (Ba and
Caruana 2014, arXiv:1312.6184). Each step varies its samples anew and asks the original: matching a function on more
inputs than there are samples is what makes training pay (Beyer et al. 2022, arXiv:2106.05237). What is trained is a
`torch_graph`, how samples are varied is in `sample_variations`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_compression.distillation.augmentation import Augmentation
from edge_compression.distillation.torch_module import TorchGraph
from edge_compression.pass_api import PassError

Array = NDArray[Any]

SEED = 0
HELD_OUT = 8
"""Of so many samples one is never trained on: it says whether the training helped."""

PROBE_STEPS = 8
"""Steps timed before it is said whether the time is worth the training."""

WORTH = 0.05
"""Share of the steps below which the rate would fall before the weights have moved: then nothing is trained."""

LEAST_SCALE = 1e-3
"""Steps are shares of a constant's own size (Shazeer and Stern 2018, arXiv:1804.04235): normalization folded into
weights makes layers of very different scales. One of nearly nothing still has to be able to move."""

MOST_STORED = 8.0
"""The most that the size of a constant stored as integers counts for, in units of its last place. Of 8 bits a step of
a hundredth would be half a unit: it would round most weights anew each time, and the training would drown in that."""

WARM_UP = 0.05
"""Share of the training over which the rate rises: the refitted weights are a good start that a large step would
spoil."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train: steps at most, the seconds they may take by the `clock`, Adam's rate as a share of each constant's
    size, inputs of a step, and how they are varied."""

    steps: int
    seconds: float
    rate: float
    batch: int
    variations: Augmentation
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of it: steps made, and the loss on samples held out before and after."""

    steps: int
    before: float
    after: float


def distill(student: TorchGraph, wanted: str, original: Callable[[Array], Array], x: Array, how: Training) -> Trained:
    """Train the student's parameters in place; they are as they were if the loss on held-out samples did not fall.

    `wanted` names the student's tensor that should be what `original` gives for a batch; `x` [N, ...] are inputs in the
    models' own dtype. The rate has fallen to nothing when the steps are made or the time is over, whichever is first;
    with one thread and time enough it is deterministic. Raises PassError if the time is worth too few steps.
    """
    import torch

    held = np.arange(len(x)) % HELD_OUT == 0 if len(x) >= 2 * HELD_OUT else np.zeros(len(x), dtype=bool)
    test = np.ascontiguousarray(x[held] if held.any() else x)
    tested = torch.from_numpy(test), torch.from_numpy(original(test))
    spread = tested[1].var(dim=0).mean().clamp_min(1e-12)
    started = {name: value.detach().clone() for name, value in student.parameters.items()}

    def loss(batch: Any, target: Any) -> Any:
        return torch.square(student(batch, wanted) - target).mean() / spread

    before = _mean_loss(loss, tested, how.batch)
    steps = _train(student, loss, original, x[~held], how)
    after = _mean_loss(loss, tested, how.batch)
    if not after < before:
        with torch.no_grad():
            for name, value in student.parameters.items():
                value.copy_(started[name])
        after = before
    return Trained(steps=steps, before=before, after=after)


def _train(student: TorchGraph, loss: Any, original: Callable[[Array], Array], x: Array, how: Training) -> int:
    """Return the number of steps made."""
    import torch

    random = np.random.default_rng(SEED)
    scales = [_scale(value, stored=name in student.stored) for name, value in student.parameters.items()]
    optimizer = torch.optim.Adam([{"params": [value]} for value in student.parameters.values()], lr=0.0)
    began, step, progress = how.clock(), 0, 0.0
    while progress < 1.0:
        batch = how.variations.of(x[random.integers(0, len(x), how.batch)], random)
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = how.rate * _schedule(progress) * scale
        optimizer.zero_grad(set_to_none=True)
        loss(torch.from_numpy(batch), torch.from_numpy(original(batch))).backward()
        optimizer.step()
        step += 1
        elapsed = how.clock() - began
        if step == PROBE_STEPS:
            check_worth(how.steps, how.steps * elapsed / step, how.seconds)
        progress = max(step / how.steps, elapsed / how.seconds)
    return step


def _scale(value: Any, *, stored: bool) -> float:
    """Return the size of a constant that its steps are shares of."""
    size = max(float(value.detach().square().mean().sqrt()), LEAST_SCALE)
    return min(size, MOST_STORED) if stored else size


def check_worth(steps: int, expected_s: float, allowed_s: float) -> None:
    """Raise PassError if far too few of the steps, which are expected to take so long, can be made in the time."""
    if allowed_s < WORTH * expected_s:
        raise PassError(
            f"{steps} steps of training take {expected_s:.0f} s, {max(allowed_s, 0.0):.0f} s are left for them; "
            "use a longer --budget"
        )


def _schedule(progress: float) -> float:
    """Return the share of the rate: a short rise, then half a cosine down to nothing."""
    return float(min(1.0, progress / WARM_UP + 0.02) * 0.5 * (1.0 + np.cos(np.pi * progress)))


def _mean_loss(loss: Any, data: tuple[Any, Any], batch: int) -> float:
    import torch

    with torch.no_grad():
        parts = [(one, target) for one, target in zip(data[0].split(batch), data[1].split(batch), strict=True)]
        return sum(float(loss(one, target)) * len(one) for one, target in parts) / len(data[0])
