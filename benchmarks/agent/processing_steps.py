"""What the declared steps cost: CPU time of each, and of resizing beside Pillow, in one process, in turns.

    python benchmarks/agent/processing_steps.py --out benchmarks/results/processing.json

Each round does every step once, in random order; reported are medians of CPU time, and for resizing the median of the
rounds' ratios to Pillow's bilinear filter on the same image.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from edge_agent.processing.boxes import suppress
from edge_agent.processing.preprocess import apply_steps
from edge_bench.environment import environment
from edge_contracts.codec import plain
from edge_contracts.processing import Mel, Resize, Step

WARM_UP = 2
SIZE = 224
PILLOW, OURS = "Pillow, 1080p to 224", "resize, 1080p to 224"


def main(arguments: list[str]) -> int:
    """Measure, print the table, write the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, help="write all samples here as JSON")
    options = parser.parse_args(arguments)
    samples = measure(cases(), options.rounds)
    table = {name: round(statistics.median(values), 3) for name, values in samples.items()}
    pairs = zip(samples[OURS], samples[PILLOW], strict=True)
    ratio = round(statistics.median(ours / theirs for ours, theirs in pairs), 3)
    for name, median in table.items():
        print(f"{name:44} {median:8.2f} ms of CPU")
    print(f"{'resize over Pillow':44} {ratio:8.2f}")
    if options.out is not None:
        document = {
            "benchmark": "processing",
            "environment": plain(environment()),
            "median_cpu_ms": table,
            "resize_over_pillow": ratio,
            "samples_cpu_ms": samples,
        }
        options.out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 0


def cases() -> dict[str, Callable[[], object]]:
    """Return what is measured, each ready to be called."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    small = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    sound = rng.integers(-3000, 3000, 16000).astype(np.int16)
    centers, sizes = rng.uniform(0.1, 0.9, (8400, 2)), rng.uniform(0.02, 0.2, (8400, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1).astype(np.float32)
    scores = rng.beta(0.3, 6.0, (8400, 80)).astype(np.float32)
    mfcc = Mel(rate_hz=16000, length=480, hop=320, fft=512, bands=40, coefficients=10)
    picture = Image.fromarray(frame)

    def step(sample: np.ndarray[tuple[int, ...], np.dtype[np.generic]], one: Step) -> Callable[[], object]:
        return lambda: apply_steps(sample[None], [one])

    return {
        PILLOW: lambda: np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32),
        OURS: step(frame, Resize(height=SIZE, width=SIZE)),
        "resize without antialias, 1080p to 224": step(frame, Resize(height=SIZE, width=SIZE, antialias=False)),
        "resize, 640 x 480 to 96": step(small, Resize(height=96, width=96)),
        "letterbox, 1080p to 640": step(frame, Resize(height=640, width=640, fit="letterbox")),
        "MFCC of one second": step(sound, mfcc),
        "suppression, 8400 boxes of 80 classes": lambda: suppress(
            boxes, scores, iou_over=0.45, score_over=0.25, most=100
        ),
    }


def measure(callers: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU milliseconds of each caller in each round."""
    samples: dict[str, list[float]] = {name: [] for name in callers}
    order = list(callers)
    for number in range(rounds + WARM_UP):
        random.Random(number).shuffle(order)  # noqa: S311 - the order of the rounds, not a secret
        for name in order:
            start = time.process_time_ns()
            callers[name]()
            if number >= WARM_UP:
                samples[name].append((time.process_time_ns() - start) / 1e6)
    return samples


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
