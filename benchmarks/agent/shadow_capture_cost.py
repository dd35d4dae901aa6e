"""What taking requests aside costs the worker that answers them, in time a request.

    python benchmarks/agent/shadow_capture_cost.py --out benchmarks/results/aside.json

Cases are measured in turn, in many short rounds; each sample is one round's CPU time for each call. `not taken` is what
every request pays while a shadow or captures are on; the others what the few pay that are taken.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge_agent.answer import Answer
from edge_agent.capture.record import captured_request, encode_captured
from edge_agent.capture.ring import CaptureRing
from edge_agent.capture.sealing import Sealer
from edge_agent.ipc.mirror import empty, mirror_pair, send
from edge_agent.worker.request_tap import RequestTap

SMALL, LARGE = np.zeros((1, 9, 128), np.float32), np.zeros((1, 640, 640, 3), np.uint8)
ANSWER = Answer(
    outputs={"y": np.zeros((1, 6), np.float32)},
    served_by="active:1.0.0/fp32",
    version="1.0.0",
    model_sha256="a" * 64,
    abstained=False,
    warnings=(),
    timing_us=100,
)


def cases(folder: Path) -> dict[str, tuple[Callable[[], object], int]]:
    """Return what is timed, by name, and how many calls a round has."""
    workers, shadow = mirror_pair()
    idle = RequestTap("active:1.0.0/fp32", workers, None)
    idle.allow(shadow=1e-12, capture=False)
    ring = CaptureRing(folder, Sealer(X25519PrivateKey.generate().public_key()), 256 * 1024 * 1024)

    def mirror(tensor: np.ndarray) -> None:
        assert send(workers, encode_captured(captured_request({"x": tensor}, ANSWER, 0.0)))
        empty(shadow)

    def capture(tensor: np.ndarray) -> None:
        ring.write(encode_captured(captured_request({"x": tensor}, ANSWER, 0.0)))

    return {
        "not taken": (lambda: idle.look({"x": SMALL}, ANSWER), 2000),
        "shown to the shadow, 4.6 kB": (lambda: mirror(SMALL), 50),
        "shown to the shadow, 1.2 MB": (lambda: mirror(LARGE), 10),
        "sealed and written, 4.6 kB (in a thread)": (lambda: capture(SMALL), 50),
        "sealed and written, 1.2 MB (in a thread)": (lambda: capture(LARGE), 10),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        timed = cases(Path(folder))
        samples: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(options.rounds):
            for name, (call, calls) in timed.items():
                start = time.process_time_ns()
                for _ in range(calls):
                    call()
                samples[name].append((time.process_time_ns() - start) / calls / 1000)
    for name, found in samples.items():
        print(f"{name:<45}{statistics.median(found):10.2f} µs")
    if options.out is not None:
        report = {"unit": "µs of CPU a call", "machine": platform.processor() or platform.machine(), "samples": samples}
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
