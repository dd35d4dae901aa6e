"""The end of the ladder: what a release declares to answer when no model can. Choosing to come here is `runtime`'s."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_agent.fallback_ladder import ABSTAIN
from edge_agent.ports import Array, Tensors
from edge_agent.processing.postprocess import Postprocessor
from edge_contracts.manifest import Manifest


class LastResortAnswers:
    """Abstain, the last good answer while it is fresh, or fixed values; see `manifest.LastResort`."""

    def __init__(self, manifest: Manifest) -> None:
        self._declared = manifest.last_resort
        self._outputs = manifest.outputs
        self._finisher = Postprocessor(manifest)
        self._remembered: tuple[float, int, dict[str, Array]] | None = None
        self.name = f"last-resort/{self._declared.kind}"
        self.remembers = self._declared.kind == "last_value"

    def remember(self, outputs: dict[str, Array], now: float) -> None:
        """Keep a good answer; to be told of them all where `remembers`."""
        self._remembered = (now, _batch(outputs), outputs)

    def state(self, now: float) -> str:
        """Return the name of what there is to give now, without regard to a request."""
        if self._declared.kind == "constant":
            return self.name if self._constant(1) else ABSTAIN
        fresh = self._remembered is not None and now - self._remembered[0] <= self._declared.fresh_s
        return self.name if self.remembers and fresh else ABSTAIN

    def outputs(self, batch: int, now: float, tensors: Tensors) -> dict[str, Array]:
        """Return the outputs to answer for a request `tensors` of a batch; empty means abstain."""
        if self._declared.kind == "constant":
            values = self._constant(batch)
            return self._finisher.finish(values, tensors) if values else values
        if self._declared.kind == "last_value" and self._remembered is not None:
            when, size, outputs = self._remembered
            return outputs if size == batch and now - when <= self._declared.fresh_s else {}
        return {}

    def _constant(self, batch: int) -> dict[str, Array]:
        """The declared values are one sample's, over all outputs in order; values that do not add up are none."""
        values, at = self._declared.values, 0
        outputs: dict[str, Array] = {}
        for tensor in self._outputs:
            inner = [max(size, 1) for size in tensor.shape[1:]]
            one = np.asarray(values[at : at + int(np.prod(inner))], dtype=tensor.dtype)
            if one.size != np.prod(inner):
                return {}
            outputs[tensor.name] = np.repeat(one.reshape([1, *inner]), batch, axis=0)
            at += one.size
        return outputs if at == len(values) else {}


def _batch(outputs: Mapping[str, Array]) -> int:
    first = next(iter(outputs.values()))
    return len(first) if first.shape else 1
