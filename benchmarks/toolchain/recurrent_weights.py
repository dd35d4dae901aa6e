"""What storing the weights of recurrent models in 8 and 4 bits costs and saves, beside ONNX Runtime's own dynamic int8.

    python benchmarks/toolchain/recurrent_weights.py --out benchmarks/results/recurrent.json

The models are those of `tests/support/makers/sequence_models.py`: two random recurrent layers with a fitted readout.
Bytes, right answers, peak memory over the engine's own, and latency in turns with the float original; every sample is
kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from support.makers.sequence_models import recurrent_classifier, sequences

from edge_bench.environment import environment
from edge_bench.measure import measure_interleaved
from edge_bench.protocol import RunnerPlan
from edge_compression.onnx_tools.graph import save, session
from edge_compression.pass_api import Context, Pass
from edge_compression.passes import Compact, DynamicInt8, MixedWeights, UnpackAtLoad, WeightOnly

RECIPES: dict[str, tuple[Pass, ...]] = {
    "onnxruntime dynamic int8": (DynamicInt8(),),
    "int8 weights unpacked at every run": (WeightOnly(), Compact()),
    "int8-weights": (WeightOnly(), UnpackAtLoad(), Compact()),
    "int8-weights-dynamic": (
        DynamicInt8(operators=("MatMul", "Gemm", "LSTM")),
        WeightOnly(),
        UnpackAtLoad(),
        Compact(),
    ),
    "mixed-weights": (MixedWeights(sqnr=20.0), UnpackAtLoad(), Compact()),
}


def build(model: bytes, passes: tuple[Pass, ...], x: NDArray[Any]) -> bytes | None:
    """Return the model after the passes, None when one of them has nothing to do."""
    context = Context(calibration=lambda: iter([{"x": one[None]} for one in x]), unquantized=model)
    for step in passes:
        try:
            model = step.apply(model, context).model
        except Exception as error:  # the tool's own refusal is a result
            sys.stderr.write(f"  {type(step).__name__}: {error}\n")
            return None
    return model


def run(kind: str, hidden: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one kind of layer."""
    original = save(recurrent_classifier(kind, hidden=hidden))
    x, y = sequences(1000, seed=2)
    calibration, _ = sequences(64, seed=4)
    built = {"float": original, **{name: build(original, passes, calibration) for name, passes in RECIPES.items()}}
    models = {name: model for name, model in built.items() if model is not None}
    answers = {name: session(model).run(None, {"x": x})[0].argmax(axis=1) for name, model in models.items()}
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "x.npy"
        np.save(samples, x[:32], allow_pickle=False)
        plans = {}
        for index, (name, model) in enumerate(models.items()):
            path = Path(folder) / f"{index}.onnx"
            path.write_bytes(model)
            plans[name] = RunnerPlan(model=str(path), format="onnx", samples=str(samples))
        measured, failures = measure_interleaved(
            plans, seconds=seconds, deadline=time.monotonic() + 600.0, needed=tuple(plans)
        )
    if failures:
        raise SystemExit(str(failures))
    base = measured["float"].latency.p50
    return {
        name: {
            "bytes": len(model),
            "bytes_ratio": len(model) / len(original),
            "points_right": float(100 * np.mean(answers[name] == y)),
            "agreement": float(100 * np.mean(answers[name] == answers["float"])),
            "peak_memory_mb": measured[name].loaded.peak_memory_mb,
            "latency_ratio": measured[name].latency.p50 / base,
            "rounds_ms": [list(map(float, one)) for one in measured[name].rounds],
        }
        for name, model in models.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256, help="units of each recurrent layer")
    parser.add_argument("--seconds", type=float, default=2.0, help="of inference for each model")
    parser.add_argument("--out", type=Path, help="write the samples as JSON")
    arguments = parser.parse_args()
    results = {kind: run(kind, arguments.hidden, arguments.seconds) for kind in ("GRU", "LSTM")}
    for kind, rows in results.items():
        for name, row in rows.items():
            sys.stdout.write(
                f"{kind:5} {name:34} {row['bytes_ratio']:.3f} bytes  {row['points_right']:5.1f} %  "
                f"agrees {row['agreement']:5.1f} %  {row['latency_ratio']:.2f} t  {row['peak_memory_mb']:.1f} MB\n"
            )
    if arguments.out:
        document = {"environment": msgspec.to_builtins(environment()), "hidden": arguments.hidden, "results": results}
        arguments.out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
