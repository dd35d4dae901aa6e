"""The docs site builds without a warning, and its pages take nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.sites.install_sites import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")

FETCHED = re.compile(
    r"""<(?:script|img|iframe)[^>]+src="?https?://|<link[^>]+rel="?(?:stylesheet|preconnect)[^>]+https?://|url\(["']?https?://"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does; a broken link or an unknown reference fails it."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.timeout(240)
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 80
    for page in pages:
        found = FETCHED.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page.relative_to(site)}: {found and found[0]}"


@pytest.mark.timeout(240)
def test_the_site_has_the_python_interface_the_schemas_and_the_glossary(site: Path) -> None:
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in ("Runtime", "Certainty", "compress", "quantize_static", "Options", "EdgewrightError"):
        assert name in python, name
    schemas = (site / "schemas" / "index.html").read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "schemas").glob("*.json"):
        assert f'href="{path.name}"' in schemas, path.name
        assert (site / "schemas" / path.name).exists(), path.name
    assert (site / "glossary.html").exists()


@pytest.mark.timeout(240)
def test_a_file_of_the_repository_that_a_page_names_can_be_read_in_the_site(site: Path) -> None:
    page = (site / "source" / "firmware_configs" / "agent.toml.html").read_text(encoding="utf-8")
    assert "device" in page
