"""Starting a child of the supervisor, so that every reason why none can be had is an OSError.

What children are told and what becomes of them is with those who start them.
"""

from __future__ import annotations

import asyncio
import errno
import sys
from typing import Any


async def start_child(*words: str, **options: Any) -> asyncio.subprocess.Process:
    """Start this Python with `words`, in a session of its own; `options` are those of `create_subprocess_exec`.

    Raises OSError where the box gives no process, or no thread to wait for its end with: a limit of tasks is reached.
    """
    try:
        return await asyncio.create_subprocess_exec(sys.executable, *words, start_new_session=True, **options)
    except RuntimeError as error:  # of the thread that asyncio starts; the child goes with its pipes
        raise OSError(errno.EAGAIN, f"no thread to wait for a child with: {error}") from None
