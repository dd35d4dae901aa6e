"""A report of a search that never was, with names and reasons that would like to run in a browser."""

from __future__ import annotations

import msgspec
from support.makers import onnx_models

from edge_bench.environment import environment
from edge_bench.stats import Interval, LatencySummary
from edge_compression.evaluation.layer_errors import LayerError
from edge_compression.evaluation.quality import Exactness, QualityRequest, compare
from edge_compression.report.caveats import EightBit
from edge_compression.report.model import CandidateReport, JudgedReport, Limited, Report, Timing

Y = onnx_models.samples(60, seed=0)[1]
SURE = onnx_models.np.eye(4)[Y]
HERE = environment()
EVIL = '</pre><script>alert("x")</script>'


def timing(ms: float) -> Timing:
    latency = LatencySummary(
        count=9, p50=ms, p50_interval=Interval(low=ms, high=ms), p90=ms, p99=ms, mean=ms, cv=0.0, stable=True,
        per_second=1000 / ms,
    )  # fmt: skip
    return Timing(latency=latency, load_ms=1.0, first_ms=1.0, peak_memory_mb=5.0)


def candidate(name: str, **changed: object) -> CandidateReport:
    made = CandidateReport(
        id=name, summary=f"summary of {name}", recipe=f"# {EVIL}", status="kept", reason=None, taken_over=False,
        changes=({"pass": "static_int8", "quantizers": 4},), build_s=1.0, build_memory_mb=100.0, size=400,
        sha256="0" * 64, quality=compare(QualityRequest(metric="top1", limit=1.0), SURE, SURE, Y), choosing=None,
        confirmation=None, pace=0.5, timing=timing(0.5),
        exactness=Exactness(
            samples=9, score_optimized=1.0, score_exact=1.0, differing=0, largest_difference=None, hazard=EVIL
        ),
        layers=(
            LayerError(name=EVIL, operator="Conv", sqnr_db=20.0), LayerError(name="b", operator="Add", sqnr_db=None)
        ),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changed)


def report() -> Report:
    over = compare(QualityRequest(metric="top1", limit=1.0), SURE[::-1], SURE, Y)
    return Report(
        name="waves", version="1.0.0", command=f"edgewright compress {EVIL}", profile="pi-4", metric="top1",
        judged=(
            JudgedReport(
                output=EVIL, metric="top1", original=1.0, limit=1.0, unit="points", named=True, truth=True,
                score_unit="%",
            ),
        ),
        max_drop=1.0, unit="points",
        limits=Limited(
            max_drop=1.0, confidence=0.75, accept_undecided=False, max_size=None, max_latency_ms=None,
            max_memory_mb=64.0, disk_bytes=10**6,
        ),
        evaluation_samples=60, confirmation_samples=0, calibration_samples=16, calibration_overlap=0,
        original_score=1.0, original_size=1000, original=timing(1.0), ladder=("int8", "float"), fastest="int8",
        eight_bit=EightBit(
            best="int8", drop=0.0, good=True, in_ladder=True, fell_short={}, statement="int8 loses 0 points"
        ),
        notes=(f"a note {EVIL}",), environment=HERE,
        candidates=(
            candidate("int8"), candidate("float", layers=(), size=1000, timing=timing(1.0)),
            candidate("lost", status="left out", reason=f"loses {EVIL}", quality=over, timing=None),
            candidate(
                "broken", status="failed", reason="no", quality=None, exactness=None, timing=None, pace=None, size=0
            ),
        ),
    )  # fmt: skip
