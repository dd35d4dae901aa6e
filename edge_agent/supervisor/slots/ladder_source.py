"""Which rungs a slot serves from: its record's releases as they lie on the disk, and the factory bundle below them.

The order of the rungs is decided in `edge_agent.inference.rungs.health`; the manifests are read here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from edge_agent.config.agent_toml import SlotConfig
from edge_agent.errors import ConfigError
from edge_agent.fallback_ladder import LadderRelease, Role, Rung, build_ladder
from edge_agent.storage.durable import StateError
from edge_agent.storage.state_dir import StateFolder, read_manifest
from edge_agent.update.record import UpdateRecord
from edge_contracts.manifest import Manifest
from edge_contracts.state import Installed


class FactoryBundle(Struct, frozen=True, kw_only=True):
    """The bundle that came with the device; never deleted, never updated."""

    folder: Path
    release: Installed
    manifest: Manifest


def open_factory(config: SlotConfig) -> FactoryBundle | None:
    """Return the slot's factory bundle, if it has one. Raises ConfigError naming the field."""
    if config.factory is None:
        return None
    folder = Path(config.factory)
    try:
        manifest, sha256 = read_manifest(folder)
    except StateError as error:
        raise ConfigError(str(error), subject=f"config.slots[{config.name}].factory") from error
    release = Installed(version=manifest.version, manifest_sha256=sha256)
    return FactoryBundle(folder=folder, release=release, manifest=manifest)


def serving_manifest(record: UpdateRecord, factory: FactoryBundle | None, state: StateFolder) -> Manifest | None:
    """Return the manifest of the release that serves, or of the factory bundle; None where there is none to read."""
    if record.serving is None:
        return None if factory is None else factory.manifest
    try:
        return state.read_manifest(record.serving.manifest_sha256)
    except StateError:
        return None


def serving_folder(record: UpdateRecord, factory: FactoryBundle | None, state: StateFolder) -> Path | None:
    """Return the folder of the release that serves, or of the factory bundle; None where there is neither."""
    if record.serving is None:
        return None if factory is None else factory.folder
    return state.release(record.serving.manifest_sha256)


def candidate_rung(record: UpdateRecord, state: StateFolder) -> Rung:
    """Return the candidate's best variant that passed its trial. The record has a candidate that did."""
    candidate = record.candidate
    assert candidate is not None
    return Rung(
        role="local",
        folder=str(state.release(candidate.manifest_sha256)),
        version=candidate.version,
        manifest_sha256=candidate.manifest_sha256,
        variant=record.usable[candidate.manifest_sha256][0],
    )


def ladder_of(
    record: UpdateRecord,
    factory: FactoryBundle | None,
    state: StateFolder,
    damaged: Callable[[Installed, StateError], None],
) -> tuple[Rung, ...]:
    """Return the rungs to serve from, best first. A release that cannot be read is left out and told to `damaged`."""
    releases: list[LadderRelease] = []
    roles: tuple[tuple[Role, Installed | None], ...] = (("active", record.serving), ("last-good", record.last_good))
    for role, release in roles:
        if release is None:
            continue
        try:
            manifest = state.read_manifest(release.manifest_sha256)
        except StateError as error:
            damaged(release, error)
            continue
        releases.append(_entry(role, state.release(release.manifest_sha256), release, manifest, record))
    if factory is not None:
        releases.append(_entry("factory", factory.folder, factory.release, factory.manifest, record))
    return build_ladder(releases)


def _entry(role: Role, folder: Path, release: Installed, manifest: Manifest, record: UpdateRecord) -> LadderRelease:
    usable = record.usable.get(release.manifest_sha256)
    return LadderRelease(
        role=role, folder=str(folder), manifest_sha256=release.manifest_sha256, manifest=manifest, usable=usable
    )
