"""`edgewright example`: the files that come with the package, for those who installed a wheel and have no checkout."""

from __future__ import annotations

from pathlib import Path

import click

_SITE = Path(__file__).resolve().parent
_FOLDERS = (_SITE / "firmware_configs", _SITE.parent / "firmware_configs")


def example_files() -> dict[str, Path]:
    """Return the shipped files by the name they are asked for, below firmware_configs, sorted."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path for path in paths}


@click.command()
@click.argument("name", required=False)
def example(name: str | None) -> None:
    """Show an example file: agent.toml, systemd units, profiles.

    Without NAME the names are listed. The end of a name is enough where it is the only one: edgewright-agent.service.

    \b
    Examples:
      edgewright example
      edgewright example agent.toml | sudo tee /etc/edgewright/agent.toml
      edgewright example edgewright-agent.service | sudo tee /etc/systemd/system/edgewright-agent.service
      edgewright example profiles/pi-4.toml > my-board.toml
    """
    files = example_files()
    if name is None:
        click.echo("\n".join(files))
        return
    found = [path for full, path in files.items() if full == name] or [
        path for full, path in files.items() if full.endswith(f"/{name}")
    ]
    if len(found) != 1:
        raise click.UsageError(f"no example {name!r}; `edgewright example` lists them")
    click.echo(found[0].read_text(encoding="utf-8"), nl=False)
