"""How long a fleet keeps telemetry: a table of `fleet.toml`. The keeping is in `edge_fleet.database.retention`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_contracts.codec import StrictRecord

Days = Annotated[float, Meta(gt=0.0, le=36500.0)]


class Retention(StrictRecord, frozen=True, kw_only=True):
    """Days for which windows are kept as they came, and for which the rows of five minutes that they are added up to
    are; rows of a day are kept for ever."""

    raw_days: Days = 7.0
    detailed_days: Days = 90.0
