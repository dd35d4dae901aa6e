"""The group `bundle`: look at bundles, check their bytes, compare two, make one of several. Nothing here changes a
bundle."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edge_agent.bundle import Bundle, open_bundle
from edge_contracts.codec import encode, plain
from edge_contracts.errors import OperatorError
from edge_contracts.guards import FeatureGuard, InputGuard, OutputGuard
from edge_contracts.manifest import Manifest

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class _BundleGroup(click.Group):
    """`create` converts models and reads tasks, which is the engineers' side: it is loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "create"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "create":
            return super().get_command(ctx, cmd_name)
        command = importlib.import_module("edge_compression.cli.create").create
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_BundleGroup)
def bundle() -> None:
    """Create, inspect, verify, compare and compose bundles.

    \b
    Examples:
      edgewright bundle create model.onnx --out build/har
      edgewright bundle inspect build/har
      edgewright bundle verify build/har --json
      edgewright bundle diff build/har-1.0.0 build/har-1.1.0
      edgewright bundle compose doorbell.toml --out build/doorbell
    """


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be absent or empty.")
@_JSON
def compose(file: Path, out: Path, as_json: bool) -> None:
    """Combine bundles into one pipeline, as declared in FILE.

    The result is released and served like any other bundle.

    \b
    Example:
      edgewright bundle compose doorbell.toml --out build/doorbell
    """
    from edge_agent.offline.compose import compose as write

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OperatorError("folder exists and is not empty", subject=str(out), hint="choose another --out or empty it")
    making = out.parent / f".{out.name}.making"
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        manifest = write(file, making, datetime.now(UTC))
        making.replace(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    if as_json:
        click.echo(encode({"bundle": str(out), "manifest": plain(manifest)}))
        return
    rungs = ", ".join(variant.id for variant in manifest.variants)
    click.echo(f"{manifest.name} {manifest.version}: {len(manifest.files)} files in {out}; variants {rungs}")


@bundle.command()
@click.argument("folder", type=_FOLDER)
@_JSON
def inspect(folder: Path, as_json: bool) -> None:
    """Show the contents of a bundle without checking its files.

    \b
    Example:
      edgewright bundle inspect build/har
    """
    opened = open_bundle(folder, verify=False)
    if as_json:
        click.echo(encode({"manifest_sha256": opened.manifest_sha256, "manifest": plain(opened.manifest)}))
        return
    manifest = opened.manifest
    click.echo(f"{manifest.name} {manifest.version}, created {manifest.created}")
    click.echo(f"manifest {opened.manifest_sha256}")
    click.echo(f"{len(manifest.files)} files, {manifest.total_bytes:,} bytes")
    for what, tensors in (("input", manifest.inputs), ("output", manifest.outputs)):
        for tensor in tensors:
            click.echo(f"{what} {tensor.name}: {tensor.dtype} {list(tensor.shape)}")
            for line in _guard_lines(tensor.guard):
                click.echo(f"  {line}")
    click.echo(f"last resort: {manifest.last_resort.kind}")
    for variant in manifest.variants:
        click.echo(
            f"variant {variant.id}: {variant.format}, {variant.size:,} bytes, score {_number(variant.score)}, "
            f"accuracy loss {_number(variant.drop)} pt, latency {_number(variant.latency_ms)} ms"
        )
    for name, inner in manifest.lineage.tools.items() if _is_pipeline(manifest) else ():
        click.echo(f"node {name}: {inner}")


def _guard_lines(guard: InputGuard | OutputGuard) -> Iterator[str]:
    """Say what a guard accepts, and what happens to anything else."""
    accepted = _range(guard)
    if isinstance(guard, OutputGuard):
        if accepted:
            yield f"{accepted}, else the next rung answers"
        return
    if accepted:
        yield f"{accepted}, else {guard.out_of_range}"
    yield f"finite, else {guard.not_finite}"
    for feature in guard.features:
        known = ", ".join(f"{one:g}" for one in feature.categories) or _range(feature)
        yield f"{feature.name or f'feature {feature.index}'}: {known}, else {feature.action}"


def _range(guard: InputGuard | OutputGuard | FeatureGuard) -> str:
    low, high = guard.minimum, guard.maximum
    if low is None:
        return "" if high is None else f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"


@bundle.command()
@click.argument("folder", type=_FOLDER)
@_JSON
def verify(folder: Path, as_json: bool) -> None:
    """Verify every file of a bundle against its manifest.

    Signatures are not checked here: `edgewright fleet release` and the agent do that.

    \b
    Example:
      edgewright bundle verify build/har
    """
    opened = open_bundle(folder)
    manifest = opened.manifest
    if as_json:
        click.echo(
            encode(
                {
                    "ok": True,
                    "name": manifest.name,
                    "version": manifest.version,
                    "manifest_sha256": opened.manifest_sha256,
                    "files": len(manifest.files),
                    "bytes": manifest.total_bytes,
                }
            )
        )
        return
    click.echo(f"{manifest.name} {manifest.version}: {len(manifest.files)} files match the manifest")


@bundle.command()
@click.argument("old", type=_FOLDER)
@click.argument("new", type=_FOLDER)
@_JSON
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Compare two bundles and show how many bytes an update downloads.

    The count is what a device that has OLD must fetch for NEW, without deltas.

    \b
    Example:
      edgewright bundle diff build/har-1.0.0 build/har-1.1.0
    """
    found = compare(open_bundle(old, verify=False), open_bundle(new, verify=False))
    if as_json:
        click.echo(encode(found))
        return
    for kind in ("added", "removed", "changed"):
        for path in found["files"][kind]:
            click.echo(f"{kind} {path}")
    for field, (before, after) in found["fields"].items():
        click.echo(f"{field}: {str(before)[:200]} -> {str(after)[:200]}")
    click.echo(f"{found['fetch_bytes']:,} of {found['total_bytes']:,} bytes to download")


def compare(old: Bundle, new: Bundle) -> dict[str, Any]:
    """Return the files added, removed and changed, the manifest fields that differ as [old, new], and the bytes of the
    chunks of `new` that `old` does not hold."""
    before = {entry.path: entry for entry in old.manifest.files}
    after = {entry.path: entry for entry in new.manifest.files}
    fields = {}
    for name in new.manifest.__struct_fields__:
        left, right = plain(getattr(old.manifest, name)), plain(getattr(new.manifest, name))
        if name != "files" and left != right:
            fields[name] = [left, right]
    return {
        "files": {
            "added": sorted(after.keys() - before.keys()),
            "removed": sorted(before.keys() - after.keys()),
            "changed": sorted(
                path for path in after.keys() & before.keys() if after[path].sha256 != before[path].sha256
            ),
        },
        "fields": fields,
        "fetch_bytes": _missing_bytes(old, new),
        "total_bytes": new.manifest.total_bytes,
    }


def _missing_bytes(old: Bundle, new: Bundle) -> int:
    held = {chunk for entry in old.manifest.files for chunk in entry.chunks}
    missing, size = 0, new.manifest.chunk_size
    for entry in new.manifest.files:
        for index, chunk in enumerate(entry.chunks):
            if chunk not in held:
                held.add(chunk)
                missing += min(size, entry.size - index * size)
    return missing


def _is_pipeline(manifest: Manifest) -> bool:
    return any(variant.format == "pipeline" for variant in manifest.variants)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
