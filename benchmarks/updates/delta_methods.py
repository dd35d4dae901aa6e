"""Ways to bring a changed file to a device, each run in a process of its own. Used by `benchmarks/updates/deltas.py`.

    python benchmarks/updates/delta_methods.py BASE TARGET ROUNDS

Prints what each cost as JSON: bytes, seconds, CPU seconds, and by how many megabytes it made its process grow. The
processes are forked from this one, which has loaded everything and holds no data. What is decoded is compared with the
new file.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bsdiff4
import numpy as np
import zstandard

from edge_agent.updater.delta_apply import apply_delta
from edge_contracts.delta import Codec
from edge_fleet.releases.deltas.encoder import encode_delta

SLOW_S = 20.0
"""A method whose encoder took more CPU is not run again, in seconds."""

Encode = Callable[[bytes, bytes], bytes]
Decode = Callable[[Path, Path, int, Path], None]
CHUNK_BITS, LEAST, MOST = 12, 1024, 16384
"""Content-defined chunks: 4 KiB on average beyond the least."""


def delta(codec: Codec) -> tuple[Encode, Decode]:
    """The product's own, over its device side as it is."""

    def decode(base: Path, sent: Path, size: int, out: Path) -> None:
        with out.open("wb") as file:
            for piece in apply_delta(base, sent, codec, size):
                file.write(piece)

    return lambda base, target: encode_delta(base, target, codec), decode


def whole() -> tuple[Encode, Decode]:
    """The new file, compressed."""

    def decode(_base: Path, sent: Path, _size: int, out: Path) -> None:
        with sent.open("rb") as source, out.open("wb") as file:
            zstandard.ZstdDecompressor().copy_stream(source, file)

    return lambda _base, target: zstandard.compress(target, 19), decode


def bsdiff() -> tuple[Encode, Decode]:
    """bsdiff4, which has no streaming."""

    def decode(base: Path, sent: Path, _size: int, out: Path) -> None:
        out.write_bytes(bsdiff4.patch(base.read_bytes(), sent.read_bytes()))

    return lambda base, target: bytes(bsdiff4.diff(base, target)), decode


def chunks() -> tuple[Encode, Decode]:
    """Content-defined chunks: a list of all (hash and length, 36 bytes each), and the new ones, compressed."""

    def encode(base: bytes, target: bytes) -> bytes:
        known = {hashlib.sha256(piece).digest() for piece in cut(base)}
        names, fresh = b"", b""
        for piece in cut(target):
            name = hashlib.sha256(piece).digest()
            names += name + len(piece).to_bytes(4, "little")
            fresh += b"" if name in known else piece
            known.add(name)
        return len(names).to_bytes(4, "little") + names + zstandard.compress(fresh, 19)

    def decode(base: Path, sent: Path, _size: int, out: Path) -> None:
        data = sent.read_bytes()
        end = 4 + int.from_bytes(data[:4], "little")
        pieces = {hashlib.sha256(piece).digest(): piece for piece in cut(base.read_bytes())}
        fresh, position = zstandard.decompress(data[end:]), 0
        with out.open("wb") as file:
            for start in range(4, end, 36):
                name, length = data[start : start + 32], int.from_bytes(data[start + 32 : start + 36], "little")
                if name not in pieces:
                    pieces[name] = fresh[position : position + length]
                    position += length
                file.write(pieces[name])

    return encode, decode


def cut(data: bytes) -> Iterator[bytes]:
    """Yield content-defined chunks by a gear hash (Xia et al., FastCDC, 2016, without its normalized sizes)."""
    gear = np.random.default_rng(1).integers(0, 2**64, 256, dtype=np.uint64)
    value = gear[np.frombuffer(data, np.uint8)]
    for shift in (1, 2, 4, 8, 16, 32):  # the hash at a byte depends on the 64 before it: all at once, by doubling
        value[shift:] += value[:-shift].copy() << np.uint64(shift)
    marks = np.flatnonzero((value >> np.uint64(64 - CHUNK_BITS)) == 0) + 1
    start = 0
    for end in [*marks.tolist(), len(data)]:
        while end - start > MOST:
            yield data[start : start + MOST]
            start += MOST
        if end - start >= LEAST or (end == len(data) and end > start):
            yield data[start:end]
            start = end


METHODS: dict[str, Callable[[], tuple[Encode, Decode]]] = {
    "delta, zstd": lambda: delta("zstd"),
    "delta, zlib": lambda: delta("zlib"),
    "whole, zstd -19": whole,
    "bsdiff4": bsdiff,
    "chunks and zstd": chunks,
}


def measure(base: Path, target: Path, rounds: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return for each method and stage what each round cost: seconds, CPU seconds, growth in megabytes, bytes."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {"encode": [], "decode": []} for name in METHODS}
    for number in range(rounds):
        for name, samples in found.items():
            if number and samples["encode"][0]["cpu_s"] > SLOW_S:
                continue
            for stage, kept in samples.items():
                kept.append(in_child(lambda stage=stage, name=name: run(stage, name, base, target)))  # type: ignore[misc]
    return found


def run(stage: str, method: str, base: Path, target: Path) -> dict[str, float]:
    """Run one stage of one method and return what it cost. Raises ValueError if it does not make the new file."""
    encode, decode = METHODS[method]()
    sent, made = base.with_name("sent"), base.with_name("made")
    size = target.stat().st_size
    old, new = (base.read_bytes(), target.read_bytes()) if stage == "encode" else (b"", b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, worked = time.perf_counter(), time.process_time()
    if stage == "encode":
        sent.write_bytes(encode(old, new))
    else:
        decode(base, sent, size, made)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - worked
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if stage == "decode" and made.read_bytes() != target.read_bytes():
        raise ValueError(f"{method} does not make the new file")
    return {"seconds": seconds, "cpu_s": cpu_s, "grown_mb": grown, "bytes": sent.stat().st_size}


def in_child(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return what `work` returns in a process of its own. Raises RuntimeError if that fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("a method failed")
    found: dict[str, float] = json.loads(text)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
