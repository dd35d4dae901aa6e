"""A candidate in shadow: answers what others were answered, and counts the difference. `python -m edge_agent.shadow`

A process of its own, at the lowest priority, that nobody waits for: it may crash, hang or grow as it likes, and costs
the supervisor one `kill`. It takes requests from its slot's mirror one at a time, answers each from the candidate alone
and reports counts on its standard output. Starting and watching it is `edge_agent.supervisor.slots.shadow_process`'s
work.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from edge_agent.answer_comparison import Comparison
from edge_agent.bundle import open_bundle
from edge_agent.capture.record import CapturedRequest, arrays, decode_captured
from edge_agent.engines.registry import import_engines
from edge_agent.errors import EngineMemoryError
from edge_agent.host.memory_limits import HEADROOM_MB, limit_growth, offer_to_oom_killer
from edge_agent.inference.answer_diff import AnswerComparer
from edge_agent.inference.runtime import Runtime
from edge_agent.ipc.mirror import receive
from edge_agent.ipc.shadow import ShadowBeat, ShadowPlan
from edge_agent.ports import EngineSettings
from edge_agent.run_clock import RunClock
from edge_contracts.errors import EdgewrightError

EXIT_MEMORY = 70
"""Exit code after a failed allocation in the engine."""

_NICE = 19
_OOM_SCORE = 900
_REST_S = 5.0


class ShadowedRelease:
    """The candidate's model, and what came of the requests it was shown."""

    def __init__(self, plan: ShadowPlan) -> None:
        """Load and warm the candidate. Raises EdgewrightError."""
        release = open_bundle(Path(plan.rung.folder), verify=False)
        settings = EngineSettings(threads=plan.threads, cache=None if plan.cache is None else Path(plan.cache))
        import_engines(release.manifest)
        if plan.memory_limit_mb is not None:
            limit_growth(plan.memory_limit_mb + HEADROOM_MB)
        self._runtime = Runtime([plan.rung], settings=settings, on_fault=lambda _, __, text: _log(text))
        self._comparer = AnswerComparer(open_bundle(Path(plan.served), verify=False).manifest, release.manifest)
        self._runtime.warm()
        self.comparison = Comparison()
        self.since: float | None = None

    def answer(self, data: bytes) -> None:
        """Answer one mirrored request and count how the answer differs. Raises EngineMemoryError."""
        self.since = time.monotonic()
        try:
            record = decode_captured(data)
            self._compare(record)
        except EngineMemoryError:
            raise
        except EdgewrightError:
            self.comparison.failed += 1  # it does not fit the candidate: after going live, it would be refused
        finally:
            self.since = None

    def _compare(self, record: CapturedRequest) -> None:
        answer = self._runtime.infer(arrays(record.inputs))
        if answer.model_sha256 is None or not answer.outputs:
            self.comparison.failed += 1
            return
        difference = self._comparer.compare(arrays(record.outputs), answer.outputs)
        self.comparison.add(difference, record.timing_us, answer.timing_us)


class Beats:
    """Reports from a thread of its own, so that the supervisor hears of a model that never comes back. When nobody
    listens any more the process ends, whatever it is doing."""

    def __init__(self, plan: ShadowPlan, output: int) -> None:
        self._plan = plan
        self._output = output
        self._candidate: ShadowedRelease | None = None
        self._run_clock = RunClock(time.monotonic())
        self._at = (0.0, 0.0)  # the request that is answered, and when it was first seen
        self._one = threading.Lock()
        threading.Thread(target=self._run, name="beats", daemon=True).start()

    def tell(self, candidate: ShadowedRelease | None = None) -> None:
        """Report now; with `candidate`, that it is loaded."""
        with self._one:
            self._candidate = candidate or self._candidate
            try:
                os.write(self._output, msgspec.json.encode(self._beat()) + b"\n")
            except OSError:
                os._exit(0)

    def _beat(self) -> ShadowBeat:
        candidate, rung = self._candidate, self._plan.rung
        comparison = Comparison() if candidate is None else candidate.comparison
        return ShadowBeat(
            counts=comparison.counts(rung.version, rung.manifest_sha256),
            busy_s=self._busy_s(),
            ready=candidate is not None,
        )

    def _busy_s(self) -> float:
        """Return how long one request has been worked at, in seconds during which this process ran."""
        self._run_clock.tick(time.monotonic())
        since = None if self._candidate is None else self._candidate.since
        if since is None:
            return 0.0
        if self._at[0] != since:
            self._at = since, self._run_clock.now
        return self._run_clock.now - self._at[1]

    def _run(self) -> None:
        while True:
            time.sleep(self._plan.beat_s)
            self.tell()


def main(arguments: list[str]) -> int:
    """Run the shadow of the plan given as the one argument, for ever; return only when it cannot."""
    plan = msgspec.json.decode(arguments[0], type=ShadowPlan)
    output = os.dup(1)
    os.dup2(2, 1)  # libraries that print must not speak for us
    offer_to_oom_killer(_OOM_SCORE)
    os.nice(_NICE)
    beats = Beats(plan, output)
    try:
        candidate = ShadowedRelease(plan)
        beats.tell(candidate)
        mirror = socket.socket(fileno=plan.mirror_fd)
        while True:
            data = receive(mirror)
            if data is not None:
                started = time.monotonic()
                candidate.answer(data)
                time.sleep(min(time.monotonic() - started, _REST_S))  # half a core at most, and half its heat
    except EngineMemoryError as error:
        _log(str(error))
        return EXIT_MEMORY
    except EdgewrightError as error:
        _log(str(error))
        return error.exit_code


def _log(text: str) -> None:
    sys.stderr.write(f"shadow: {text}\n")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # after a failed allocation the engine's destructors are not to be trusted
