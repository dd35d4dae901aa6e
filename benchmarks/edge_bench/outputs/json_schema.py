"""JSON Schemas (draft 2020-12) of what `edgewright bench --json` writes, made from the types; `schemas` beside this
module holds the result, and a test compares.

    python -m edge_bench.outputs.json_schema
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from edge_bench.compare import LatencyComparison
from edge_bench.decisions.gate import BenchGate
from edge_bench.decisions.history import History
from edge_bench.report import BenchReport

FOLDER = Path(__file__).resolve().parent / "schemas"
DOCUMENTS: dict[str, type] = {
    "bench-report": BenchReport,
    "bench-comparison": LatencyComparison,
    "bench-gate": BenchGate,
    "bench-history": History,
}


def schema_text(name: str) -> str:
    """Return the JSON Schema of one document as indented JSON text."""
    schema = msgspec.json.schema(DOCUMENTS[name])
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **schema}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for document in DOCUMENTS:
        (FOLDER / f"{document}.schema.json").write_text(schema_text(document), encoding="utf-8")
