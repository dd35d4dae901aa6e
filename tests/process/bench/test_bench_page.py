"""The page of a real benchmark in a real browser; a serial meter at a real terminal line."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.makers import onnx_models

from edge_bench.cli import bench
from edge_bench.energy.meters import open_meter

CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="needs chromium")
def test_a_browser_shows_the_page_without_an_error_or_a_request(tmp_path: Path) -> None:
    onnx_models.write_task(tmp_path)
    page = tmp_path / "page.html"
    words = [str(tmp_path / "waves.onnx"), "--task", str(tmp_path / "waves.toml"), "--seconds", "0.3"]
    words += ["--sustain", "0.6s", "--operators", "--html", str(page), "--sweep", "optimize=on,off"]
    assert CliRunner().invoke(bench, words, catch_exceptions=False).exit_code == 0
    assert CHROMIUM is not None, "chromium is not installed"
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    for word in ("Latency distribution", "Latency over time", "where the time goes", "top1 against cost", "VALID"):
        assert word in done.stdout


def test_a_meter_on_a_serial_line_counts_joules() -> None:
    ours, theirs = os.openpty()
    meter = open_meter(f"serial:{os.ttyname(theirs)}")
    assert meter is not None
    try:
        os.write(ours, b"noise\n5.0 V 2.0 A\n")
        end = time.monotonic() + 10
        while meter.joules() < 1.0 and time.monotonic() < end:
            time.sleep(0.05)
        assert meter.joules() >= 1.0
    finally:
        meter.close()
        os.close(ours)
        os.close(theirs)
