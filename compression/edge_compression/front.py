"""What a compression run gives to a program or a notebook: the ladder, its variants to be run, and the reasons.

A notebook shows a `Front` as a table and a chart (`_repr_html_`); nothing of a notebook is needed. Variants are
run as a device runs them: by `edge_agent.Runtime` from the bundle, with its processing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent import Runtime
from edge_compression.report.evidence import RungEvidence, SampleEvidence
from edge_compression.report.explain import Explanation, explain
from edge_compression.report.gains import sized
from edge_compression.report.html import front_html
from edge_compression.report.model import CandidateReport, Report
from edge_compression.report.text import last, short
from edge_contracts.errors import BundleError, OperatorError
from edge_contracts.manifest import Manifest

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class FrontVariant:
    """One rung of a front: `size` in bytes, `lost` in `unit`, `latency_ms` on the host that measured. `path` is the
    model's file in the bundle."""

    name: str
    size: int
    lost: float
    unit: str
    latency_ms: float
    path: Path
    report: CandidateReport
    evidence: RungEvidence | None
    bundle: Path = field(repr=False)

    def run(self, x: Any) -> dict[str, Array]:
        """Return the outputs by name of one request: an array [N, ...] as the task's samples are stored, or arrays by
        the name of the input. What the task declares is done before and after, as on a device.

        Raises TensorError naming the tensor that does not fit, BundleError if this variant cannot answer.
        """
        with Runtime.open(self.bundle) as runtime:
            runtime.prefer(self.name)
            inputs = [one.name for one in runtime.manifest.inputs if one.constant is None and one.feedback is None]
            answer = runtime.infer(dict(x) if isinstance(x, Mapping) else {inputs[0]: np.asarray(x)})
        if not answer.served_by.endswith(self.name):
            text = (
                f"another answered in its place ({answer.served_by}): {'; '.join(answer.warnings) or 'it was refused'}"
            )
            raise BundleError(text, subject=self.name)
        return {name: np.asarray(value) for name, value in answer.outputs.items()}

    def __str__(self) -> str:
        return f"{self.name}: {sized(self.size)}, {self.lost:.2f} {self.unit} lost, {self.latency_ms:.3g} ms"


@dataclass(frozen=True, kw_only=True)
class Front:
    """What a compression run gives: a bundle with its manifest, whose variants are the rungs in order, and everything
    tried in `report`, of which `html` is the form for people. `evidence` says which samples are answered otherwise.

    `front["variant"]` or `front[0]` is a rung, iterating gives all; `str(front)` is what the console says.
    """

    bundle: Path
    manifest: Manifest
    report: Report
    evidence: SampleEvidence
    html: str = field(repr=False)

    @property
    def ladder(self) -> tuple[str, ...]:
        """The names of the rungs, the first one first; the last is the float original."""
        return self.report.ladder

    def __len__(self) -> int:
        return len(self.ladder)

    def __iter__(self) -> Iterator[FrontVariant]:
        return (self[name] for name in self.ladder)

    def __getitem__(self, name: str | int) -> FrontVariant:
        """Return a rung by its name or its place. Raises OperatorError naming the rungs there are."""
        if isinstance(name, int):
            name = self.ladder[name]
        if name not in self.ladder:
            hint = f"the rungs are {', '.join(self.ladder)}; front.explain({name!r}) says why it is none"
            raise OperatorError("is no rung of this front", subject=repr(name)[:80], hint=hint)
        one = next(one for one in self.report.candidates if one.id == name)
        entry = self.manifest.variant(name)
        return FrontVariant(
            name=name,
            size=one.size,
            lost=one.quality.drop if one.quality is not None else 0.0,
            unit=self.report.unit,
            latency_ms=(one.timing or self.report.original).latency.p50,
            path=self.bundle / entry.file,
            report=one,
            evidence=next((seen for seen in self.evidence.rungs if seen.id == name), None),
            bundle=self.bundle,
        )

    def explain(self, name: str) -> Explanation:
        """Return in sentences what a candidate is, what it gains and loses and on which samples, or why it is no rung.
        Raises OperatorError naming the candidates there are."""
        return explain(name, self.report, self.evidence)

    def __str__(self) -> str:
        end = last(self.report)
        return "\n".join([*short(self.report), *([end] if end is not None else [])])

    def _repr_html_(self) -> str:
        return front_html(self.report)
