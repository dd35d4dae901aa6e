"""Standard error of a real child: passed on, and remembered to its last word."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from edge_agent.supervisor.process_output import MAX_PARTIAL_BYTES, ProcessOutput


async def output_of(code: str) -> list[str]:
    lines: list[str] = []
    output = ProcessOutput(lines.append)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=output.child_end)
    output.begin()
    await process.wait()
    output.end()
    return lines


def test_a_crash_is_remembered_to_its_last_line(capfd: pytest.CaptureFixture[str]) -> None:
    lines = asyncio.run(output_of("import sys; sys.stderr.write('begins\\n'); {}['x']"))
    assert lines[0] == "begins"
    assert lines[-1] == "KeyError: 'x'"
    assert capfd.readouterr().err.splitlines() == lines


def test_a_line_without_an_end_is_taken(capfd: pytest.CaptureFixture[str]) -> None:
    assert asyncio.run(output_of("import os; os.write(2, b'last word'); os._exit(9)")) == ["last word"]
    assert capfd.readouterr().err == "last word"


def test_a_flood_costs_bounded_memory_and_hangs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    lines = asyncio.run(
        output_of(r"import os; [os.write(2, b'x' * 65536) for _ in range(200)]; os.write(2, b'\nend\n')")
    )
    assert lines[-1] == "end"
    assert max(map(len, lines)) <= MAX_PARTIAL_BYTES
    assert len(capfd.readouterr().err) == 200 * 65536 + 5


def test_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import subprocess, sys, os; subprocess.Popen(['sleep', '3']); os.write(2, b'gone\\n')"
    assert asyncio.run(asyncio.wait_for(output_of(code), 2.5)) == ["gone"]
    capfd.readouterr()


async def _none() -> ProcessOutput:
    output = ProcessOutput(print)
    output.cancel()
    return output


def test_where_no_process_could_be_started_both_ends_are_closed() -> None:
    output = asyncio.run(_none())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(output.child_end)
