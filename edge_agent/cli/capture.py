"""The commands `capture-key` and `replay` of the group `agent`: keys for captures, and asking again what was asked."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_contracts.codec import encode
from edge_contracts.errors import OperatorError

if TYPE_CHECKING:
    from edge_agent.offline.replay import ReplayReport

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_PASSPHRASE = click.option(
    "--passphrase-file", type=_FILE, help="File containing the private key's passphrase (first line)."
)
_REPORT_S = 0.5
DIFFERENT = 1
"""Exit code of a replay that found answers that differ, as of diff(1)."""


@click.command("capture-key")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_PASSPHRASE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def capture_key(folder: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Create the key pair that encrypts captured requests.

    capture.pub goes to devices, which encrypt captures with it and cannot read them; capture.key stays with you and
    is the only way to read them.

    \b
    Example:
      edgewright agent capture-key keys/ --passphrase-file phrase.txt
    """
    from edge_agent.capture.sealing import make_keys

    private, public = make_keys(folder, _passphrase(passphrase_file))
    if as_json:
        click.echo(encode({"private": str(private), "public": str(public)}))
        return
    click.echo(f"{public}: for devices, as `key` in [slots.capture]")
    click.echo(f"{private}: keep it off the devices; captures cannot be read without it")


@click.command()
@click.argument("captures", type=_FOLDER)
@click.option(
    "--release",
    "releases",
    multiple=True,
    required=True,
    help="Bundle folder, or a version in --state; give one or two.",
)
@click.option("--key", type=_FILE, required=True, help="Private key file, capture.key.")
@_PASSPHRASE
@click.option("--state", type=_FOLDER, help="State folder to find releases in, by version or hash.")
@click.option("--variant", help="Variant to use in each release; default: its first.")
@click.option("--tolerance", default=0.0, show_default=True, help="Ignore numeric differences up to this value.")
@click.option("--limit", type=click.IntRange(min=1), help="Number of records to replay; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def replay(
    captures: Path,
    releases: tuple[str, ...],
    key: Path,
    passphrase_file: Path | None,
    state: Path | None,
    variant: str | None,
    tolerance: float,
    limit: int | None,
    as_json: bool,
) -> None:
    """Replay captured requests and report differing answers.

    With one --release, its answers are compared with the device's; with two, with each other. Exit code: 0 no answer
    changed, 1 some changed, 2 or more an error.

    \b
    Examples:
      edgewright agent replay --release build/har-1.1.0 --key capture.key captures/main
      edgewright agent replay --release 1.0.0 --release 1.1.0 --state state --key capture.key state/captures/main
    """
    from itertools import islice

    from edge_agent.capture.ring import read_captures
    from edge_agent.capture.sealing import load_opener
    from edge_agent.offline.replay import Side
    from edge_agent.offline.replay import replay as run

    if len(releases) > 2:
        raise OperatorError("give --release once or twice", subject="--release")
    opener = load_opener(key, _passphrase(passphrase_file))
    sides = [Side(_release_folder(name, state), variant) for name in releases]
    damaged: list[str] = []
    records = read_captures(captures, opener, lambda file, why: damaged.append(f"{file}: {why}"))
    report = run(
        (sides[0], sides[1] if len(sides) == 2 else None),
        islice(records, limit),
        tolerance=tolerance,
        damaged=damaged,
        progress=_Progress().tell,
    )
    click.echo("", err=True)
    click.echo(encode(report) if as_json else replay_text(report))
    if report.changed:
        raise SystemExit(DIFFERENT)


class _Progress:
    """Tells how far a replay is, on stderr, now and then."""

    def __init__(self) -> None:
        self._after = 0.0

    def tell(self, done: int) -> None:
        if time.monotonic() >= self._after:
            self._after = time.monotonic() + _REPORT_S
            click.echo(f"\r{done} records", nl=False, err=True)


def replay_text(report: ReplayReport) -> str:
    """Return a report as a screen of text."""
    lines = [
        f"before    {report.before}",
        f"after     {report.after}",
        f"records   {report.records}, {report.compared} compared, {report.changed} changed",
    ]
    if report.unfit or report.silent:
        lines.append(
            f"skipped   {report.unfit} that do not match the model, {report.silent} without an answer on one side"
        )
    if report.agreement is not None:
        lines.append(f"agreement {report.agreement:.2%} ({report.low:.2%} to {report.high:.2%})")
    if report.confidence_shift is not None:
        lines.append(f"confidence {report.confidence_shift:+.4f} on average")
    if report.difference_median is not None:
        quantiles = (report.difference_median, report.difference_p90, report.difference_p99)
        words = ["beyond 1e6" if value is None else f"{value:.3g}" for value in quantiles]
        lines.append(f"largest difference of a record: half below {words[0]}, 90 % {words[1]}, 99 % {words[2]}")
    for name, seen in report.classes.items():
        if seen.agreed < seen.records:
            lines.append(f"class     {name}: {seen.agreed} of {seen.records} unchanged")
    lines += [f"changed   {pair}  {count}" for pair, count in sorted(report.confusion.items(), key=lambda p: -p[1])]
    for worst in report.worst:
        when = datetime.fromtimestamp(worst.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
        what = f"{worst.before} -> {worst.after}" if worst.before is not None else ""
        apart = "" if worst.largest_difference is None else f" by {worst.largest_difference:.4g}"
        lines.append(f"record    {worst.record} of {when}: {what}{apart}  ({worst.file})")
    lines += [f"damaged   {text}" for text in report.damaged]
    return "\n".join(lines)


def _release_folder(name: str, state: Path | None) -> Path:
    """Return the folder of a release: a bundle's, or, by version or the beginning of its hash, one in a state folder.

    Raises OperatorError."""
    if state is None or Path(name).is_dir():
        return Path(name)
    from edge_agent.storage.state_dir import StateFolder, read_manifest

    found = [
        folder
        for folder in sorted(StateFolder(state).releases.iterdir())
        if (folder / "manifest.json").is_file()
        and (folder.name.startswith(name) or read_manifest(folder)[0].version == name)
    ]
    if len(found) != 1:
        text = "no such release" if not found else "several releases match: give the beginning of the hash"
        raise OperatorError(f"{name!r}: {text}", subject=str(state))
    return found[0]


def _passphrase(path: Path | None) -> bytes | None:
    if path is None:
        return None
    words = path.read_bytes().split(b"\n", 1)[0].strip()
    if not words:
        raise OperatorError("the first line is empty: no passphrase", subject=str(path))
    return words
