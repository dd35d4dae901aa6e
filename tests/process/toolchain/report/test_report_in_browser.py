"""The report in a real browser: what it shows, and that nothing in it runs or is fetched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.makers import reports

from edge_compression.report.html import html

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="needs chromium"),
    pytest.mark.timeout(180),
]


def browse(folder: Path, *options: str, page: str = "report.html") -> tuple[str, str]:
    """Return what chromium prints and says about the report when it has come to rest."""
    assert CHROMIUM is not None, "chromium is not installed"
    (folder / "report.html").write_text(html(reports.report()), encoding="utf-8")
    how = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}/user"]
    how += ["--enable-logging=stderr", "--virtual-time-budget=2000", "--window-size=1280,2400"]
    done = subprocess.run(
        [CHROMIUM, *how, *options, (folder / page).as_uri()], capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_browser_shows_the_ladder_and_runs_nothing(tmp_path: Path) -> None:
    shown, said = browse(tmp_path, "--dump-dom")
    assert shown.count("<svg") == 3
    assert len(re.findall(r"<h1[ >]", shown)) == 1
    for words in ("summary of int8", "left out: loses", "failed: no", "fastest here"):
        assert words in shown
    assert "<script" not in shown
    assert "CONSOLE" not in said  # errors of markup, of what is blocked, of what is missing


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    (tmp_path / "frame.html").write_text(
        f'<iframe id="f" src="report.html" style="border:0;width:{width}px;height:900px"></iframe><script>'
        'document.getElementById("f").onload = event => { document.title = "wide " + '
        "event.target.contentDocument.documentElement.scrollWidth }</script>"
    )
    shown, _ = browse(tmp_path, "--dump-dom", "--allow-file-access-from-files", page="frame.html")
    found = re.search(r"<title>wide (\d+)</title>", shown)
    assert found is not None
    assert int(found[1]) <= width


def test_browser_draws_it(tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    browse(tmp_path, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000  # a blank page has a tenth of it
