"""A signed order for one task on selected devices: benchmark, capture or replay. Signed by the `rollouts` role."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_contracts import limits
from edge_contracts.channel import ChannelRelease
from edge_contracts.codec import Record, decode
from edge_contracts.errors import ContractError
from edge_contracts.names import Name, UtcTime, parse_time
from edge_contracts.selector import Selector, check_selectors

JOB_SCHEMA = 1


class Job(Record, frozen=True, kw_only=True):
    """One job. `limit_s` and `limit_mb` bound what it may cost the device; after `deadline` it is not started."""

    schema: int = JOB_SCHEMA
    job: Name
    kind: Literal["benchmark", "capture", "replay"]
    model: Name
    release: ChannelRelease | None = None
    selectors: Annotated[tuple[Selector, ...], Meta(max_length=limits.MAX_TAGS)] = ()
    parameters: dict[str, str | int | float | bool] = {}
    limit_s: Annotated[float, Meta(gt=0.0, le=86400.0)] = 600.0
    limit_mb: Annotated[float, Meta(gt=0.0)] = 256.0
    deadline: UtcTime | None = None


def parse_job(data: bytes) -> Job:
    """Parse a job document. Raises ContractError naming the field."""
    job = decode(data, Job, limit=limits.MAX_DOCUMENT_BYTES, what="job")
    if job.schema != JOB_SCHEMA:
        raise ContractError(f"schema {job.schema} is not known here", subject="job.schema")
    if job.deadline is not None:
        parse_time(job.deadline, what="job.deadline")
    check_selectors(job.selectors, what="job.selectors")
    return job


def job_target(job: str) -> str:
    """Return the TUF target path of a job document."""
    return f"jobs/{job}.json"
