"""Every disk that a power cut in a piece of code can leave: the calls of one run, and what each loss makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from support.disks.call_stops import run_until
from support.disks.disk_model import Disk, Image, bytes_lost, bytes_zero, kept, lost, names_lost, torn

LOSSES = (kept, lost, bytes_lost, bytes_zero, names_lost, torn)


def disks(act: Callable[[], None], folder: Path) -> Iterator[tuple[int, Image]]:
    """Yield every disk that a cut in `act` can leave, with the number of calls that had happened. The process is not
    ended here: the calls of one run are enough."""
    disk = Disk(folder)
    calls, _ = run_until(act, folder, None)
    for number, call in enumerate([*calls, None]):
        for loss in LOSSES:
            yield number, disk.after_cut(loss)
        if call is not None:
            disk.happen(call)
