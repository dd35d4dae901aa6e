"""Run a tool's script for several settings: its imports are paid once, every setting has a process of its own.

`each.py SCRIPT MODEL CALIBRATION.npy FOLDER SECONDS SETTING...` writes FOLDER/SETTING with the model's suffix, and what
was said into FOLDER/SETTING.log, with the exit status as its last line. This runs in the tool's environment, so it
imports nothing of ours.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def alone(main: Callable[..., None], arguments: tuple[str, ...], log: Path, seconds: int) -> int:
    """Run `main` in a child whose output goes into `log`; return its status, that of a signal negative."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        signal.alarm(seconds)
        main(*arguments)
        code = 0
    except BaseException:  # a child must not return from here, whatever happens
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def each(script: str, model: str, calibration: str, folder: str, seconds: str, *settings: str) -> None:
    main = runpy.run_path(script)["main"]
    for setting in settings:
        out, log = Path(folder, setting).with_suffix(Path(model).suffix), Path(folder, f"{setting}.log")
        status = alone(main, (model, calibration, str(out), setting), log, int(seconds))
        with log.open("a") as said:
            said.write(f"\n{status}\n")


if __name__ == "__main__":
    each(*sys.argv[1:])
