"""Hooks of the docs site: what the pages refer to in the repository becomes part of the site.

- A link to a file outside of docs/ leads to a page with that file's text; to a folder, to a list of its files.
- Folders without a page of their own (runbooks, decisions, schemas) get an index, and are put into the navigation.
- Markdown files that live beside their code (ADOPTED) become pages.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ADOPTED = {
    "README.md": "reference/readme.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "CHANGELOG.md": "reference/changelog.md",
    "compression/README.md": "reference/recipes.md",
    "benchmarks/conformance.md": "reference/conformance.md",
    "benchmarks/fuzzing.md": "reference/fuzzing.md",
    "benchmarks/power-cuts.md": "reference/power-cuts.md",
}
"""Pages that live elsewhere in the repository, and their place in the site."""

INDEXES = {
    "runbooks": ("Runbooks", "Steps to take after an accident with keys. Each is run as a test."),
    "decisions": (
        "Decisions",
        "Why it is so: context, decision, evidence, consequences. Records keep the words of their time.",
    ),
    "schemas": ("Schemas", "JSON Schemas of all documents and messages, written from the contracts by `make schemas`."),
}
LINK = re.compile(r"(?<=\]\()(?!https?://|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".toml": "toml", ".py": "python", ".sh": "sh", ".json": "json", ".service": "ini"}
WORKER = "assets/disk_worker.js"
FETCHED_WORKER = "https://unpkg.com/iframe-worker/shim"

MAX_SOURCE = 200_000
"""Bytes of a file that is shown whole; larger ones (measured samples) are copied and linked."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation of folders, given there as `name/`."""
    config.nav = [_expanded(entry) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add indexes, adopted pages, and whatever the pages link to outside of docs/."""
    for name in INDEXES:
        files.append(File.generated(config, f"{name}/index.md", content=_index(name)))
    for source, place in ADOPTED.items():
        text = _relinked((ROOT / source).read_text(encoding="utf-8"), ROOT / source, place)
        files.append(File.generated(config, place, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    for target in sorted(_outside()):
        page = File.generated(config, _page_of(target), content=_shown(target), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    files.append(File.generated(config, WORKER, abs_src_path=str(DOCS / "tools" / "disk_worker.js")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn links that leave docs/, or lead to a folder, into links within the site."""
    if page.file.generated_by:
        return markdown
    place = page.file.src_uri
    return _relinked(markdown, DOCS / place, place)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Have pages take the stand-in for Workers from the site: the theme's plugin would fetch one from elsewhere."""
    return output.replace(FETCHED_WORKER, os.path.relpath(WORKER, Path(page.file.dest_uri).parent))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Do the same for the page of missing pages."""
    return output_content.replace(FETCHED_WORKER, WORKER)


def _expanded(entry: Any) -> Any:
    (title, value), *_ = entry.items()
    if isinstance(value, list):
        return {title: [_expanded(below) for below in value]}
    if isinstance(value, str) and value.endswith("/"):
        folder = value.rstrip("/")
        pages = [f"{folder}/{path.name}" for path in sorted((DOCS / folder).glob("*.md"))]
        return {title: [f"{folder}/index.md", *pages]}
    return entry


def _index(name: str) -> str:
    title, words = INDEXES[name]
    lines = [f"# {title}", "", words, ""]
    lines += [f"- [{_title(path)}]({path.name})" for path in sorted((DOCS / name).glob("*.md"))]
    for path in sorted((DOCS / name).glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        text = about.get("description") or about.get("$defs", {}).get(about.get("title", ""), {}).get("description", "")
        lines.append(f"- [{path.name.partition('.')[0]}]({path.name}): {' '.join(text.split())}")
    return "\n".join(lines) + "\n"


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def _pages() -> list[tuple[Path, str]]:
    """Return all written pages: the file and its place in the site."""
    own = [(path, path.relative_to(DOCS).as_posix()) for path in sorted(DOCS.rglob("*.md"))]
    return own + [(ROOT / source, place) for source, place in ADOPTED.items()]


def _outside() -> set[Path]:
    """Return every file and folder outside of docs/ that a page links to, and the files of these folders."""
    found: set[Path] = set()
    for path, _ in _pages():
        for match in LINK.finditer(path.read_text(encoding="utf-8")):
            target = (path.parent / match[1]).resolve()
            if target.is_relative_to(ROOT) and not target.is_relative_to(DOCS) and target.exists():
                found.add(target)
    found |= {below for folder in found if folder.is_dir() for below in folder.iterdir() if below.is_file()}
    return {target for target in found if target.relative_to(ROOT).as_posix() not in ADOPTED}


def _page_of(target: Path) -> str:
    """Return the place of a file or folder outside of docs/ in the site."""
    name = target.relative_to(ROOT).as_posix()
    return f"source/{name}/index.md" if target.is_dir() else f"source/{name}.md"


def _shown(target: Path) -> str:
    name = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        files = [path for path in sorted(target.iterdir()) if path.is_file()]
        links = [f"- [{path.name}]({path.name}.md)" for path in files]
        return "\n".join([f"# {name}/", "", *links, ""])
    if target.stat().st_size > MAX_SOURCE:
        return f"# {name}\n\n{target.stat().st_size // 1000} kB: see the file in the repository.\n"
    text = target.read_text(encoding="utf-8", errors="replace")
    language = LANGUAGES.get(target.suffix, "text")
    return f"# {name}\n\n````{language}\n{text}\n````\n"


def _relinked(markdown: str, source: Path, place: str) -> str:
    def within(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        return _relative(target, place, match[1]) + (match[2] or "")

    return LINK.sub(within, markdown)


def _relative(target: Path, place: str, written: str) -> str:
    """Return the link from a page at `place` to `target`, or what was written where the site has no such page."""
    if not target.is_relative_to(ROOT) or not target.exists():
        return written
    name = target.relative_to(ROOT).as_posix()
    if name in ADOPTED:
        goal = ADOPTED[name]
    elif target.is_relative_to(DOCS):
        goal = target.relative_to(DOCS).as_posix() + ("/index.md" if target.is_dir() else "")
    else:
        goal = _page_of(target)
    return os.path.relpath(goal, Path(place).parent)
