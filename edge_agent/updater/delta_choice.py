"""Which of the deltas towards a release this device can use. Pure; applying one is in
`edge_agent.updater.delta_apply`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edge_contracts.delta import DeltaEntry, Deltas
from edge_contracts.names import Sha256


def choose(
    deltas: Deltas, missing: Mapping[Sha256, int], held: Collection[Sha256], codecs: Collection[str]
) -> dict[Sha256, DeltaEntry]:
    """Return for each file the smallest delta whose base is among `held` and whose codec is among `codecs`.

    `missing` gives the bytes of each file that are not here yet; a delta that costs as much is of no use.
    """
    chosen: dict[Sha256, DeltaEntry] = {}
    for delta in sorted(deltas.deltas, key=lambda delta: delta.size):
        usable = delta.base in held and delta.codec in codecs and delta.size < missing.get(delta.target, 0)
        if usable:
            chosen.setdefault(delta.target, delta)
    return chosen
