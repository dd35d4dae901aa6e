"""The flight page: what a killed process had in flight is known exactly."""

import os
import signal
import subprocess
import sys

from edge_agent.ipc.in_flight import InFlightCounters

_CHILD = """
import sys, time
from edge_agent.ipc.in_flight import InFlightCounters
page = InFlightCounters.open(int(sys.argv[1]))
for _ in range(1000): page.start(); page.finish()
for _ in range(3): page.start()
print("flying", flush=True)
time.sleep(60)
"""


def test_requests_of_a_killed_process_stay_counted():
    page = InFlightCounters.create()
    command = [sys.executable, "-c", _CHILD, str(page.fd)]
    with subprocess.Popen(command, pass_fds=[page.fd], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"flying\n"
        os.kill(child.pid, signal.SIGKILL)
    assert (page.started, page.in_flight) == (1003, 3)
    page.close()


def test_a_new_page_is_zero():
    page = InFlightCounters.create()
    page.start()
    page.finish()
    assert page.in_flight == 0
    page.close()
