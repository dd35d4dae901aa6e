"""JSON Schemas (draft 2020-12) of every contract, generated from the types; `docs/schemas/` holds the result.

Run `python -m edge_contracts.schemas docs/schemas` after a contract changes; a test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from edge_contracts.channel import Channel, Family
from edge_contracts.delta import Deltas
from edge_contracts.enrollment import CertificateAnswer, CertificateRequest, Claim
from edge_contracts.job import Job
from edge_contracts.manifest import Manifest
from edge_contracts.pipeline import Pipeline
from edge_contracts.profile import DeviceProfile
from edge_contracts.state import Presence, ReportedState
from edge_contracts.telemetry import Event, TelemetryWindow, Tombstone
from edge_contracts.transfer import Hint, Request, Response
from edge_contracts.turns import Roster

CONTRACTS: dict[str, type] = {
    "manifest": Manifest,
    "pipeline": Pipeline,
    "channel": Channel,
    "family": Family,
    "job": Job,
    "deltas": Deltas,
    "presence": Presence,
    "reported-state": ReportedState,
    "telemetry-window": TelemetryWindow,
    "event": Event,
    "tombstone": Tombstone,
    "device-profile": DeviceProfile,
    "hint": Hint,
    "roster": Roster,
    "request": Request,
    "response": Response,
    "claim": Claim,
    "certificate-request": CertificateRequest,
    "certificate-answer": CertificateAnswer,
}


def schema_text(name: str) -> str:
    """Return the JSON Schema of one contract as indented JSON text."""
    schema = msgspec.json.schema(CONTRACTS[name])
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **schema}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def write_schemas(folder: Path) -> None:
    """Write every schema as `<name>.schema.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CONTRACTS:
        (folder / f"{name}.schema.json").write_text(schema_text(name), encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
