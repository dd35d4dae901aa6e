"""A box that gives no process or no thread is an OSError to whoever starts a child, which they all expect."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from edge_agent.supervisor.child_process import start_child

SUPERVISOR = Path(__file__).resolve().parents[4] / "edge_agent" / "supervisor"


@pytest.mark.parametrize(
    "refusal", [RuntimeError("can't start new thread"), OSError(errno.EAGAIN, "Resource temporarily unavailable")]
)
def test_a_box_at_its_limit_of_tasks_is_an_os_error(refusal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    with pytest.raises(OSError, match=r"thread|temporarily") as found:
        asyncio.run(start_child("-c", "pass"))
    assert found.value.errno == errno.EAGAIN


def test_every_child_of_the_supervisor_is_started_this_way() -> None:
    starters = [path.name for path in SUPERVISOR.rglob("*.py") if "create_subprocess" in path.read_text()]
    assert starters == ["child_process.py"]
