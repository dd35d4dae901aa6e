"""The words of the command line: losses, durations, sizes. Each is parsed where it is typed."""

from __future__ import annotations

import re
from typing import Any

import click

from edge_bench.task_format import allowance
from edge_contracts.errors import ContractError

_DURATION = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(s|m|h)?$")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(k|M|G)?B?$")
_BYTES = {None: 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


class Loss(click.ParamType):
    """What may be lost: `0.5` or `0.5pt` (points), `5%` (of an error), `0.3dB`; returned as it was written."""

    name = "loss"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            given = allowance(str(value), "--max-drop")
        except ContractError:
            self.fail(f"{value!r} is not a loss such as 0.5, 0.5pt, 5% or 0.3dB", param, ctx)
        if given.value > 100.0:
            self.fail(f"{value!r} is not between 0 and 100", param, ctx)
        return str(value)


class Duration(click.ParamType):
    """A duration in seconds: `90`, `90s`, `10m` or `1h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _DURATION.match(str(value))
        if found is None or float(found[1]) <= 0:
            self.fail(f"{value!r} is not a duration such as 90s, 10m or 1h", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


class Size(click.ParamType):
    """A number of bytes: `70000`, `70k`, `1.5M` or `2G`, decimal."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _SIZE.match(str(value))
        if found is None or float(found[1]) <= 0:
            self.fail(f"{value!r} is not a size such as 70k or 1.5M", param, ctx)
        return int(float(found[1]) * _BYTES[found[2]])
