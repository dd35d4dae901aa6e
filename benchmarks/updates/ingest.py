"""How many telemetry windows a controller's worker stores in a second, and what one costs, beside a bare `executemany`.

    PYTHONPATH=. python benchmarks/updates/ingest.py --out benchmarks/results/ingest.json

A worker is `IngestQueue` over `TelemetryStore`, as in the controller: it parses each message, writes batches, and
acknowledges. Messages are windows as a slot sends them, from 1,000 devices in turns; reading them from the broker's
socket is left out, since every client of the broker pays for that. The bare rate is what the database's own driver
reaches with the same rows and the same batches, and nothing parsed. PostgreSQL is a private server in a temporary
folder; each of its workers is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common.private_postgres import private_postgres
from edge_contracts.codec import encode
from edge_contracts.telemetry import TelemetryWindow
from edge_contracts.topics import device_topic
from edge_fleet.controller.service import BATCH, IngestQueue
from edge_fleet.database.telemetry import TelemetryStore
from edge_io.mqtt.words import MessageReceived

DEVICES = 1000
WINDOW = TelemetryWindow(
    device="cam-0",
    boot_id="0b5a7c1e-7f0e-4f1c-9d59-0e0a8f6f9f11",
    sequence=0,
    start="2026-11-20T10:00:00.000000Z",
    end="2026-11-20T10:01:00.000000Z",
    slot="main",
    model="detector",
    version="1.4.2",
    variant="int8",
    counters={"requests": 60, "errors": 1, "abstained": 3},
    served_by={"detector 1.4.2 int8": 60},
    latency_log2_us=(0,) * 12 + (40, 15, 5),
    resources={"temperature_c": 61.5, "available_memory_mb": 1211.0, "cpu_percent": 31.0, "worker_memory_mb": 96.0},
    histograms={"x/mean": (1, 4, 9, 20, 16, 6, 3, 1), "confidence": (0, 0, 1, 2, 5, 10, 18, 24)},
    drift={"x/mean": 0.4},
)


def deliveries(first: int, count: int, worker: int) -> Iterator[MessageReceived]:
    """Yield windows of all devices in turns, numbered from `first`."""
    for number in range(first, first + count):
        device = f"cam-{number % DEVICES}"
        window = msgspec.structs.replace(
            WINDOW, device=device, boot_id=f"{WINDOW.boot_id[:-1]}{worker}", sequence=number // DEVICES
        )
        yield MessageReceived(topic=device_topic("bench", device, "tele"), payload=encode(window))


def worker(url: str, number: int, count: int, out: Any) -> None:
    """Store `count` windows and put (began, ended, CPU seconds) into `out`."""
    store = TelemetryStore(url)
    queue = IngestQueue(store, lambda line: print(line, file=sys.stderr))
    messages = list(deliveries(0, count, number))
    began, cpu = time.monotonic(), time.process_time()
    for place in range(0, count, BATCH):
        for message in messages[place : place + BATCH]:
            queue.take(message, time.monotonic())
        queue.write(time.monotonic())
    out.put((began, time.monotonic(), time.process_time() - cpu))
    assert queue.counts["stored"] == count, queue.counts
    store.close()


def measure(url: str, workers: int, count: int) -> dict[str, float]:
    """Return windows a second of all workers together and the CPU microseconds of a message in a worker."""
    out: Any = multiprocessing.Queue()
    TelemetryStore(url).close()
    processes = [multiprocessing.Process(target=worker, args=(url, number, count, out)) for number in range(workers)]
    for process in processes:
        process.start()
    found = [out.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    seconds = max(ended for _, ended, _ in found) - min(began for began, _, _ in found)
    cpu = sum(cpu for _, _, cpu in found) / (workers * count)
    return {"windows_per_s": workers * count / seconds, "cpu_us": cpu * 1e6}


def rows(count: int) -> list[tuple[Any, ...]]:
    """Return the rows of so many windows."""
    found = []
    for message in deliveries(0, count, 9):
        window = msgspec.json.decode(message.payload, type=TelemetryWindow)
        body = message.payload.decode()
        found.append((window.device, window.boot_id, window.sequence, "window", window.end, window.slot, body))
    return found


COLUMNS = "device, boot_id, sequence, kind, time, slot, body"


def bare_sqlite(file: Path, count: int) -> dict[str, float]:
    """Return what `sqlite3` alone reaches."""
    TelemetryStore(f"sqlite:///{file}").close()
    made = rows(count)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA synchronous=NORMAL")
    statement = f"INSERT INTO messages ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
    began, cpu = time.monotonic(), time.process_time()
    for place in range(0, count, BATCH):
        with connection:
            connection.executemany(statement, made[place : place + BATCH])
    return _rate(began, cpu, count)


def bare_postgres(url: str, count: int) -> dict[str, float]:
    """Return what psycopg alone reaches with one connection."""
    import psycopg

    TelemetryStore(url).close()
    made = rows(count)
    statement = f"INSERT INTO messages ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"  # noqa: S608
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        began, cpu = time.monotonic(), time.process_time()
        for place in range(0, count, BATCH):
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(statement, made[place : place + BATCH])
        return _rate(began, cpu, count)


def _rate(began: float, cpu: float, count: int) -> dict[str, float]:
    return {"windows_per_s": count / (time.monotonic() - began), "cpu_us": (time.process_time() - cpu) / count * 1e6}


def middle(samples: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: round(statistics.median(sample[name] for sample in samples), 2) for name in samples[0]}


def run(count: int, rounds: int) -> dict[str, Any]:
    """Measure all in turns, so that other load meets all alike."""
    samples: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, private_postgres() as server:
        for number in range(rounds):
            own, bare = Path(folder) / f"own{number}.db", Path(folder) / f"bare{number}.db"
            found = {"sqlite": measure(f"sqlite:///{own}", 1, count), "sqlite_bare": bare_sqlite(bare, count)}
            if server is not None:
                found["postgresql_2"] = measure(server.database(own.stem), 2, count // 2)
                found["postgresql_bare"] = bare_postgres(server.database(bare.stem), count)
            for name, sample in found.items():
                samples.setdefault(name, []).append(sample)
            print(number, found, file=sys.stderr)
        version = None if server is None else server.version
    return {
        "windows": count,
        "rounds": rounds,
        "batch": BATCH,
        "median": {name: middle(found) for name, found in samples.items()},
        "samples": samples,
        "environment": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "postgresql": version,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "load_1min": round(os.getloadavg()[0], 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = run(asked.windows, asked.rounds)
    text = json.dumps(found, indent=1) + "\n"
    if asked.out is not None:
        asked.out.write_text(text)
    print(json.dumps(found["median"], indent=1))


if __name__ == "__main__":
    main()
