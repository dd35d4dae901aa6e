"""Starting the throw-away process that tries a release, and reading its verdict. The trial is `edge_agent.trial`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

import msgspec
from msgspec import Struct

from edge_agent.ipc.trial import TrialPlan, TrialReport
from edge_agent.run_clock import RunClock
from edge_agent.supervisor.process_output import start_heard

MAX_REPORT_BYTES = 256 * 1024
LOOK_S = 0.5
"""How often it is looked whether the time is over, in seconds."""

GRACE_S = 30.0
"""What the trial process itself may take beyond the time of its variants, in seconds."""


class TrialVerdict(Struct, frozen=True, kw_only=True):
    """What came of a trial: the usable variants in ladder order, or why there are none."""

    usable: tuple[str, ...] = ()
    reason: str = "ok"
    text: str = ""


async def try_release(plan: TrialPlan, variants: int, said: Callable[[str], None]) -> TrialVerdict:
    """Run a trial of a release with that many variants; `said` is given each line that it writes to its log.
    Cancelling kills the trial and everything it started."""
    process, log = await start_heard(
        said,
        "-m",
        "edge_agent.trial",
        msgspec.json.encode(plan).decode(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_REPORT_BYTES,
    )
    try:
        output = await _output(process, plan.time_s * variants + GRACE_S)
    except TimeoutError:
        return TrialVerdict(reason="time", text="the trial timed out")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        log.end()
    return _verdict(output, process.returncode)


async def _output(process: asyncio.subprocess.Process, limit_s: float) -> bytes:
    """Return all that the process writes. Raises TimeoutError when it takes longer than `limit_s`, in seconds during
    which this process ran."""
    loop = asyncio.get_running_loop()
    run = RunClock(loop.time())
    reading = asyncio.create_task(process.communicate())
    try:
        while not (await asyncio.wait({reading}, timeout=LOOK_S))[0]:
            run.tick(loop.time())
            if run.now > limit_s and run.judging:
                raise TimeoutError
        return reading.result()[0]
    finally:
        reading.cancel()


def _verdict(output: bytes, code: int | None) -> TrialVerdict:
    try:
        report = msgspec.json.decode(output[:MAX_REPORT_BYTES], type=TrialReport)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return TrialVerdict(reason="crash", text=f"the trial exited with code {code} without a report")
    text = "; ".join(f"{trial.variant}: {trial.reason} {trial.text}".strip() for trial in report.variants)
    if report.usable:
        return TrialVerdict(usable=report.usable, text=text)
    reason = report.variants[0].reason if report.variants else "crash"
    return TrialVerdict(reason=reason, text=text)
