"""Structured pruning: whole channels and heads leave the graph, and what read them is refitted by least squares.

The order of work: which channels depend on each other (`edge_compression.pruning.channels`), in which order a site's
are least missed and what that does to the answers (`edge_compression.pruning.site_loss`), how many each site keeps
(`prune_plan`), the removal, and a refit of every layer from the first to the last (`edge_compression.pruning.refit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx
from msgspec import Meta

from edge_compression.onnx_tools.graph import load, save
from edge_compression.onnx_tools.latency import latency_ratio, seconds_per_answer
from edge_compression.pass_api import Applied, Context, Feeds, PassError
from edge_compression.pruning.channels.graph import ChannelGraph, channel_graph, counts, remove
from edge_compression.pruning.plan import Kept, first_within, grown, path
from edge_compression.pruning.refit import Samples, refit_layers
from edge_compression.pruning.site_loss import MOST_RUNS, SiteLoss, prunable, site_losses
from edge_contracts.codec import StrictRecord
from edge_contracts.manifest import Format

MAX_SAMPLES = 512
"""Samples for sums and refits: beyond it weights no longer change, and the convolutions' many positions take time."""


class Prune(StrictRecord, frozen=True, kw_only=True, tag_field="pass", tag="prune"):
    """Remove channels until `keep` of the model's `of` is left: weights, products (multiplications of an answer) or
    latency, measured here. Sites keep multiples of `multiple` channels. `samples` of the task's. A model whose answers
    would take more than `seconds` in all is refused."""

    format: ClassVar[Format] = "onnx"
    quantizes: ClassVar[bool] = False

    keep: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.5
    of: Literal["weights", "products", "latency"] = "weights"
    multiple: Annotated[int, Meta(ge=1, le=64)] = 8
    samples: Literal["calibration", "training"] = "calibration"
    seconds: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 120.0

    def apply(self, model: bytes, context: Context) -> Applied:
        samples = partial(_samples, context, self.samples)
        original = load(model)
        graph = prunable(original, channel_graph(original, _first(samples())))
        if not graph.sites:
            raise PassError(
                "no channel of this model can be removed: every one is tied to an input, an output or an "
                "unsupported operator"
            )
        self._check_time(model, graph, samples)
        losses = site_losses(original, graph, samples, multiple=self.multiple)
        plan = self._plan(original, graph, losses, _first(samples()))
        gone = _gone(plan, losses)
        pruned = remove(original, graph, gone)
        kept = {one.node.output[0]: ~np.isin(one.given, gone) for one in graph.layers}
        refitted = refit_layers(pruned, original, kept, samples)
        before, after = counts(graph, ()), counts(graph, gone)
        return Applied(
            model=save(pruned),
            changed={
                "channels_before": sum(site.units.size for site in graph.sites),
                "channels_after": sum(plan),
                "kept_by_site": " ".join(map(str, plan)),
                "weights_kept": after[0] / before[0],
                "products_kept": after[1] / before[1],
                "layers_refitted": refitted,
            },
        )

    def _check_time(self, model: bytes, graph: ChannelGraph, samples: Samples) -> None:
        """Raise PassError if the answers to be computed take too long: half a graph for half the samples a site, half
        of two graphs for every sample a layer, and the measurements."""
        count = sum(1 for _ in samples())
        answers = count * (len(graph.sites) / 4 + len(graph.layers)) + MOST_RUNS
        expected = answers * seconds_per_answer(model, _first(samples()))
        if expected > self.seconds:
            hint = "fewer calibration samples, or more `seconds` in the recipe"
            raise PassError(f"would take {expected:.0f} s, limit {self.seconds:g}", hint=hint)

    def _plan(self, model: onnx.ModelProto, graph: ChannelGraph, losses: list[SiteLoss], feeds: Feeds) -> Kept:
        place = 0 if self.of == "weights" else 1

        def cost(plan: Kept) -> float:
            return float(counts(graph, _gone(plan, losses))[place])

        start = tuple(site.units.size for site in graph.sites)
        full = cost(start)
        plans = list(path(start, [one.losses for one in losses], cost))
        fits: Callable[[Kept], bool] = lambda plan: cost(plan) <= self.keep * full  # noqa: E731 - one of two predicates
        if self.of == "latency":
            reference = save(model)
            fits = lambda plan: (  # noqa: E731
                latency_ratio(save(remove(model, graph, _gone(plan, losses))), reference, feeds) <= self.keep
            )
        found = first_within(plans, fits)
        if found is None:
            raise PassError(
                f"target not reachable: even at minimum width more than {self.keep:g} of its {self.of} is left"
            )
        return grown(found, [one.losses for one in losses], fits)


def _gone(plan: Kept, losses: list[SiteLoss]) -> list[int]:
    return [unit for kept, one in zip(plan, losses, strict=True) for unit in one.order[: one.units - kept]]


def _samples(context: Context, kind: str) -> Iterator[Feeds]:
    if kind == "calibration":
        return islice(context.calibration(), MAX_SAMPLES)
    if context.training is None:
        raise PassError("the task names no training samples", subject="data.train")
    return islice(context.training(), MAX_SAMPLES)


def _first(samples: Iterator[Feeds]) -> Feeds:
    for feeds in samples:
        return feeds
    raise PassError("no calibration sample", subject="calib_x")
