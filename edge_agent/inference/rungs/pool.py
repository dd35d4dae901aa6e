"""A ladder at work: which of its rungs are loaded, which are well, and in which order they are asked.

What is asked of them, and what becomes of an answer, is in `runtime`; how long a rung rests is decided in
`core.fallback`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from edge_agent.config.inference_options import Certainty
from edge_agent.errors import EngineMemoryError
from edge_agent.fallback_ladder import Rung
from edge_agent.host.request_memory import RequestMemory, SizeWatcher
from edge_agent.inference.counters import Counters
from edge_agent.inference.rungs.health import WELL, failed, preferred_order, walk
from edge_agent.inference.rungs.rung import LoadedRung, load_rung
from edge_agent.ports import Composite, EngineSettings
from edge_contracts.errors import EdgewrightError
from edge_contracts.manifest import Manifest

FIRST_LOOK = 4
"""Requests in a row without an answer that the guards let pass, after which the models are asked their own samples;
then again after twice as many."""

LOOK_SHARE = 50.0
"""While they fail at those, they are asked again after that many times of what one run took them."""

FaultListener = Callable[[Rung, str, str], None]
"""Told of a rung that failed, with the reason code and the text."""


class RungPool:
    """See the module. `manifest` is that of the first release, `tally` where answers and failures to load are counted.
    Rungs below the first are loaded when first needed. Not thread-safe."""

    __slots__ = (
        "_certainty",
        "_fed_alike",
        "_health",
        "_look_at",
        "_manifest",
        "_on_fault",
        "_order",
        "_refused_bytes",
        "_refused_in_a_row",
        "_remembers",
        "_settings",
        "_tally",
        "_watcher",
        "loaded",
        "mute",
        "quick",
        "rungs",
    )

    def __init__(
        self,
        rungs: Sequence[Rung],
        manifest: Manifest,
        tally: Counters,
        *,
        settings: EngineSettings,
        certainty: Certainty | None,
        on_fault: FaultListener | None,
        watcher: SizeWatcher | None = None,
        refused_bytes: int | None = None,
    ) -> None:
        self.rungs = tuple(rungs)
        self.loaded: dict[int, LoadedRung] = {}
        self.quick: LoadedRung | None = None
        """The first rung, while it is well and is fed what requests hold: usual ones may take its express lane."""
        self.mute = False
        """Whether the guards refuse what the models say even to their own samples: then no request is answered."""
        self._refused_in_a_row, self._look_at = 0, 0.0
        self._manifest, self._tally = manifest, tally
        self._remembers = manifest.last_resort.kind == "last_value"
        self._settings, self._certainty, self._on_fault = settings, certainty, on_fault
        self._watcher, self._refused_bytes = watcher, refused_bytes
        self._order = preferred_order(self.rungs, None)
        self._health = [WELL] * len(self.rungs)
        self._fed_alike: set[int] = set()

    @property
    def first(self) -> int:
        """The rung that is asked first; -1 of an empty ladder."""
        return self._order[0] if self._order else -1

    def answering(self) -> Rung | None:
        """Return the rung that answers now: the first that is loaded and has not been left since it last answered. From
        any thread."""
        if self.mute:
            return None
        fit = (index for index in self._order if index in self.loaded and not self._health[index].rests)
        return next((self.rungs[index] for index in fit), None)

    def may_answer(self, now: float) -> bool:
        """Return whether a request at `now` would be tried on a model that is loaded. From any thread."""
        return not self.mute and any(index in self.loaded for index in walk(self._order, self._health, now))

    def walk(self, now: float) -> Iterator[tuple[int, LoadedRung]]:
        """Yield the rungs to ask for one request at `now`, seconds of the monotonic clock, in their order; one that is
        not loaded yet is loaded, and left out if it cannot be. Raises EngineMemoryError."""
        for index in walk(self._order, self._health, now):
            rung = self.loaded.get(index) or self._load(index)
            if rung is not None:
                yield index, rung

    def is_fed_alike(self, index: int) -> bool:
        """Return whether a loaded rung is fed what the first release is fed."""
        return index in self._fed_alike

    def release(self, index: int) -> str:
        """Return the SHA-256 of the manifest that a rung is of; empty for none."""
        return self.rungs[index].manifest_sha256 if index >= 0 else ""

    def has_answered(self, index: int) -> None:
        """Note that a rung is well."""
        self._refused_in_a_row, self.mute = 0, False
        if self._health[index] is not WELL:
            self._health[index] = WELL
            self._look()

    def has_failed(self, index: int, reason: str, text: str, *, hard: bool = False) -> None:
        """Note a rung's failure, and tell of it when it is news; `hard` if it could not even be loaded."""
        before = self._health[index]
        self._health[index] = failed(before, time.monotonic(), hard=hard)
        self._look()
        if before is WELL or self._health[index].rest_until > before.rest_until:
            self.tell(index, reason, text)

    def all_were_refused(self) -> None:
        """Note that no rung had an answer to a request that its guards let pass. Whether the request is at fault or the
        models, their own samples show. Raises EngineMemoryError."""
        self._refused_in_a_row += 1
        row = self._refused_in_a_row
        if not self.mute and row >= FIRST_LOOK and row & (row - 1) == 0:
            self._ask_own_samples()

    def look_again(self, now: float) -> None:
        """Ask the models their own samples again where they were found mute and a while has passed. Raises
        EngineMemoryError."""
        if self.mute and now >= self._look_at:
            self._ask_own_samples()

    def _ask_own_samples(self) -> None:
        was, text = self.mute, ""
        start = time.monotonic()
        for rung in self.loaded.values():
            try:
                rung.answer(rung.usual())
                self.mute = False
                return
            except EngineMemoryError:
                raise
            except EdgewrightError as error:
                text = f"its own sample is refused as well: {error}"
        self.mute = bool(text)
        end = time.monotonic()
        self._look_at = end + LOOK_SHARE * (end - start)
        if self.mute and not was:
            self.tell(self.first, "guard", text)

    def prefer(self, variant: str | None, threads: int | None) -> None:
        """Ask this variant of the first release first from now on (None: the ladder's first), on so many threads.

        What was loaded and is not preferred is unloaded: a lighter variant saves no memory beside a heavier one."""
        if threads is not None and threads != self._settings.threads:
            settings = self._settings
            self._settings = EngineSettings(threads=threads, optimize=settings.optimize, cache=settings.cache)
            self.unload()
        self._order = preferred_order(self.rungs, variant)
        self.unload(keep=self.first)

    def unload(self, *, keep: int = -1) -> None:
        """Unload every rung but one."""
        for index in [index for index in self.loaded if index != keep]:
            self.loaded.pop(index).session.close()
        self._look()

    def tell(self, index: int, reason: str, text: str) -> None:
        """Tell of something that is wrong with a rung."""
        if self._on_fault is not None:
            self._on_fault(self.rungs[index], reason, text)

    def tell_of_nodes(self, index: int, composite: Composite) -> None:
        """Tell what a pipeline's nodes have to say."""
        for text in composite.news():
            self.tell(index, "node", text)

    def _load(self, index: int) -> LoadedRung | None:
        try:
            rung = load_rung(self.rungs[index], self._settings)
            rung.answers = self._tally.answers(rung.served_by)
            rung.memory = RequestMemory(self._watcher, self._refused_bytes)
            rung.warm()
            if self._certainty is not None and not rung.predicts(self._certainty.coverage):
                self.tell(index, "certainty", f"has no threshold for a coverage of {self._certainty.coverage:g}")
        except EngineMemoryError as error:
            self.tell(index, error.reason, str(error))
            raise
        except EdgewrightError as error:
            self._tally.count("errors")
            self.has_failed(index, error.reason, str(error), hard=True)
            return None
        if rung.composite is not None:
            self.tell_of_nodes(index, rung.composite)
        if self._health[index].hard:
            self._health[index] = WELL  # it has run once just now
        rung.is_plain = not self._remembers and rung.predictor is None and rung.composite is None
        self.loaded[index] = rung
        if rung.bundle.manifest.inputs == self._manifest.inputs:
            self._fed_alike.add(index)
        self._look()
        return rung

    def _look(self) -> None:
        """See what `quick` is: to be called whenever what decides it may have changed."""
        first = self.first
        rung = self.loaded.get(first)
        fit = rung is not None and self._health[first] is WELL and first in self._fed_alike
        self.quick = rung if fit else None
