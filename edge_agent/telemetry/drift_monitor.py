"""One slot's drift over time: gathers counts until they can be judged, tells when an alarm begins and when it ends.

The statistics are in `edge_agent.telemetry.drift_tests`. Counts come from the workers' heartbeats, references from the
manifest of the release that serves; when that changes, everything starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edge_agent.device_event import DeviceEvent
from edge_agent.histogram_names import parted, references
from edge_agent.telemetry.drift_tests import SMALLEST_WINDOW, Drift, PageHinkley, judge, mean_bin
from edge_contracts.limits import MAX_SAMPLE_TAGS
from edge_contracts.manifest import Manifest

SLOW = "confidence"
"""The histogram whose mean is followed from window to window: a model becomes unsure slowly. Only over all requests:
each series that is followed has false alarms of its own, and those of all tags would be nine times as many."""


class DriftMonitor:
    """See the module. `tell` hears of `drift` and `drift-over` events."""

    def __init__(self, slot: str, tell: Callable[[DeviceEvent], None]) -> None:
        self._slot = slot
        self._tell = tell
        self._release: tuple[str, str] | None = None
        self._references: dict[str, tuple[int, ...]] = {}
        self._gathered: dict[str, list[int]] = {}
        self._means: dict[str, PageHinkley] = {}
        self._alarms: set[str] = set()

    def close(self, manifest: Manifest | None, histograms: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """Take a window's counts; return for each histogram judged now how far it is from its reference, as a multiple
        of what chance keeps below: over 1 is an alarm."""
        if manifest is None:
            return {}
        self._follow(manifest)
        self._forget_tags({parted(name)[1] for name in histograms})
        for name, counts in histograms.items():
            gathered = self._gathered.setdefault(name, [0] * len(counts))
            if len(gathered) == len(counts):
                self._gathered[name] = [a + b for a, b in zip(gathered, counts, strict=True)]
        ready = {name: bins for name, bins in self._gathered.items() if sum(bins) >= SMALLEST_WINDOW}
        for name in ready:
            del self._gathered[name]
        judged = judge(self._references, ready)
        self._say({drift.name: drift for drift in judged}, self._slow(ready))
        return {drift.name: round(drift.value / drift.bound, 3) for drift in judged}

    def _follow(self, manifest: Manifest) -> None:
        release = (manifest.name, manifest.version)
        if release != self._release:
            self._release, self._references = release, references(manifest)
            self._gathered, self._means, self._alarms = {}, {}, set()

    def _forget_tags(self, here: set[str]) -> None:
        """Forget tags that are not in this window, if they were too many with them: each new worker may meet others."""
        kept = here | {parted(name)[1] for name in (*self._gathered, *self._alarms)}
        if len(kept - {""}) > MAX_SAMPLE_TAGS + 1:
            here = here | {""}
            self._gathered = {name: bins for name, bins in self._gathered.items() if parted(name)[1] in here}
            self._alarms = {name for name in self._alarms if parted(name)[1] in here}

    def _slow(self, ready: Mapping[str, Sequence[int]]) -> dict[str, bool]:
        """Follow the means; return which of them have an alarm."""
        found: dict[str, bool] = {}
        for name, bins in ready.items():
            if name.endswith(f"/{SLOW}") and name in self._references:
                sums = self._means.get(name, PageHinkley()).add(*mean_bin(bins))
                found[f"{name} (slow)"] = sums.alarm
                self._means[name] = PageHinkley() if sums.alarm else sums
        return found

    def _say(self, judged: Mapping[str, Drift], slow: Mapping[str, bool]) -> None:
        alarms = {name: drift.alarm for name, drift in judged.items()} | dict(slow)
        for name, alarm in alarms.items():
            if alarm and name not in self._alarms:
                self._alarms.add(name)
                self._tell(_begins(self._slot, name, judged.get(name)))
            elif not alarm and name in self._alarms:
                self._alarms.discard(name)
                self._tell(DeviceEvent(event="drift-ended", severity="info", slot=self._slot, text=name))


def _begins(slot: str, name: str, drift: Drift | None) -> DeviceEvent:
    if drift is None:
        text = f"{name}: the mean has drifted gradually"
        return DeviceEvent(event="drift", severity="warning", slot=slot, text=text)
    text = (
        f"{name}: {drift.by} {drift.value:.3g}, expected by chance: below {drift.bound:.3g} in {drift.samples} samples"
    )
    figures: dict[str, str | int | float | bool] = {"psi": drift.psi, "jsd": drift.jsd, "ks": drift.ks}
    return DeviceEvent(
        event="drift", severity="warning", slot=slot, text=text, detail=figures | {"samples": drift.samples}
    )
