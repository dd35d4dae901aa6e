"""Children of a measurement: deaf to the terminal's Ctrl-C, ended by who started them, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edge_bench.children import Children, run

pytestmark = pytest.mark.timeout(300)  # each test starts Python a few times, on whatever machine there is

CHILD = """
import sys, time
from edge_bench.children import die_with
die_with(sys.argv[1])
print("here", flush=True)
time.sleep(600)
"""
STARTER = """
import subprocess
from edge_bench.children import start
child = start(["sleeping_child"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sleeping_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_end(pid: int) -> None:
    while not gone(pid):
        time.sleep(0.05)


def test_children_do_not_hear_ctrl_c_from_their_first_moment_on(place: Path) -> None:
    children = Children()
    child = children.start(["sleeping_child"], stdout=subprocess.PIPE)
    child.send_signal(signal.SIGINT)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGINT)
        assert child.poll() is None
        children.kill()
    assert child.returncode == -signal.SIGKILL


def test_who_starts_children_still_hears_ctrl_c(place: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with Children().start(["sleeping_child"], stdout=subprocess.PIPE) as child:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        child.kill()


def test_a_killed_starter_leaves_no_child(place: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE)
    with starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        assert not gone(child)
        starter.kill()
    wait_for_end(child)


def test_a_child_whose_starter_is_gone_already_does_nothing(place: Path) -> None:
    nobody = psutil.Process().ppid()
    done = subprocess.run([sys.executable, "-m", "sleeping_child", str(nobody)], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_child_that_takes_too_long_is_killed(place: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def noted(words: list[str], **pipes: object) -> subprocess.Popen[bytes]:
        started.append(Children().start(words, **pipes))
        return started[0]

    with pytest.raises(subprocess.TimeoutExpired):
        run(["sleeping_child"], timeout_s=0.2, starter=noted)
    assert started[0].returncode == -signal.SIGKILL
