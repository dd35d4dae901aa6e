"""Structured pruning: whole channels and heads leave the graph, and what read them is refitted by least squares.

The order of work: which channels depend on each other (`edge_compression.pruning.channels`), in which order a site's
are least missed and what that does to the answers (`edge_compression.pruning.site_loss`), how many each site keeps
(`prune_plan`), the removal, and a refit of every layer from the first to the last (`edge_compression.pruning.refit`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx
from msgspec import Meta

from edge_compression.onnx_tools.graph import load, save
from edge_compression.onnx_tools.latency import latency_ratio, seconds_per_answer
from edge_compression.pass_api import (
    SAME_BELOW,
    SAME_FROM,
    SAME_VALUE,
    Applied,
    Changes,
    Context,
    Feeds,
    ImpossibleError,
    PassError,
)
from edge_compression.pruning.affine_layers import POSITIONS, affine_layers
from edge_compression.pruning.channels.graph import ChannelGraph, channel_graph, counts, remove
from edge_compression.pruning.effort import RefitLayer, algebra_seconds, measured_speed
from edge_compression.pruning.plan import Kept, ShareTarget, first_within, grown, path
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
            raise ImpossibleError(
                "no channel of this model can be removed: every one is tied to an input, an output or an "
                "unsupported operator",
                whatever=self.__struct_fields__,
            )
        self._check_time(model, original, graph, samples)
        losses = site_losses(original, graph, samples, multiple=self.multiple)
        plan, same = self._plan(original, graph, losses, _first(samples()))
        gone = _gone(plan, losses)
        pruned = remove(original, graph, gone)
        kept = {one.node.output[0]: ~np.isin(one.given, gone) for one in graph.layers}
        refitted = refit_layers(pruned, original, kept, samples)
        before, after = counts(graph, ()), counts(graph, gone)
        return Applied(
            model=save(pruned),
            changed={
                **same,
                "channels_before": sum(site.units.size for site in graph.sites),
                "channels_after": sum(plan),
                "kept_by_site": " ".join(map(str, plan)),
                "weights_kept": after[0] / before[0],
                "products_kept": after[1] / before[1],
                "layers_refitted": refitted,
            },
        )

    def _check_time(self, model: bytes, original: onnx.ModelProto, graph: ChannelGraph, samples: Samples) -> None:
        """Raise ImpossibleError if it takes too long: the answers to be computed, half a graph for half the samples a
        site, half of two graphs for every sample a layer, and the measurements; and the linear algebra."""
        count = sum(1 for _ in samples())
        answers = count * (len(graph.sites) / 4 + len(graph.layers)) + MOST_RUNS
        expected = answers * seconds_per_answer(model, _first(samples()))
        expected += algebra_seconds(_readings(original, graph), count, measured_speed())
        if expected > self.seconds:
            raise ImpossibleError(
                f"would take {expected:.0f} s, limit {self.seconds:g}",
                whatever=("keep", "of", "multiple"),
                less="seconds",
                hint="fewer calibration samples, or more `seconds` in the recipe",
            )

    def _plan(
        self, model: onnx.ModelProto, graph: ChannelGraph, losses: list[SiteLoss], feeds: Feeds
    ) -> tuple[Kept, Changes]:
        """Return what each site keeps, and for which other targets it would be the same."""
        place = 0 if self.of == "weights" else 1

        def cost(plan: Kept) -> float:
            return float(counts(graph, _gone(plan, losses))[place])

        start = tuple(site.units.size for site in graph.sites)
        full = cost(start)
        plans = list(path(start, [one.losses for one in losses], cost))
        if self.of == "latency":
            reference = save(model)
            target = ShareTarget(
                keep=self.keep,
                share=lambda plan: latency_ratio(save(remove(model, graph, _gone(plan, losses))), reference, feeds),
            )
        else:
            target = ShareTarget(keep=self.keep, share=lambda plan: cost(plan) / full)
        found = first_within(plans, target.fits)
        if found is None:
            raise ImpossibleError(
                f"target not reachable: even at minimum width more than {self.keep:g} of its {self.of} is left",
                less="" if self.of == "latency" else "keep",
            )
        plan = grown(found, [one.losses for one in losses], target.fits)
        if self.of == "latency":
            return plan, {}
        return plan, {SAME_VALUE: "keep", SAME_FROM: target.accepted, SAME_BELOW: target.rejected}


def _readings(model: onnx.ModelProto, graph: ChannelGraph) -> list[RefitLayer]:
    """Return the layers that are refitted and how many units of sites each reads."""
    known = affine_layers(model)
    units: Counter[int] = Counter()
    for site in graph.sites:
        units.update(dict.fromkeys(site.readers, site.units.size))
    found = []
    for index, one in enumerate(graph.layers):
        layer = known.get(one.node.output[0])
        if layer is None:
            continue
        rows, columns = layer.rows(model).shape
        positions = 1 if layer.node.op_type == "Gemm" else POSITIONS
        found.append(RefitLayer(rows=rows, columns=columns, units=units[index], positions=positions))
    return found


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
