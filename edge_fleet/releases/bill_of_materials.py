"""What a release consists of, as a CycloneDX 1.6 bill of materials, and which devices run a component.

The bill follows from the signed manifest alone and is the same each time it is made. `fleet release` writes it to
`sboms/` in the fleet's folder; `fleet exposed` reads the manifests in the repository and adds what devices report: the
version of the agent and of the engines. Pure.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edge_contracts.codec import Record
from edge_contracts.manifest import Manifest
from edge_contracts.names import Name, Sha256, Text, Version
from edge_contracts.state import ReportedState, SlotState

SPEC_VERSION = "1.6"
FORMATS = {"onnx": "onnxruntime", "tflite": "litert"}
"""The engine of a file format; its name as devices report it."""

AGENT = "edgewright"


class Component(Record, frozen=True, kw_only=True):
    """A part of a release: `role` is model, file, engine or tool. An engine's `version` is the oldest that will do."""

    name: Text
    version: Text = ""
    role: Text
    sha256: Sha256 | None = None


class Exposed(Record, frozen=True, kw_only=True):
    """A device that runs a component, and how: `role` is agent, engine, or the component's role in the release that the
    slot serves or can return to (`kept`)."""

    device: Name
    online: bool | None
    slot: Name | None = None
    component: Text
    version: Text
    role: Text
    release: Text = ""
    kept: bool = False


def components(manifest: Manifest) -> list[Component]:
    """Return the parts of a release: its files, the engines that run it, the tools that made it."""
    variants = {variant.file for variant in manifest.variants}
    files = [
        Component(name=one.path, role="model" if one.path in variants else "file", sha256=one.sha256)
        for one in manifest.files
    ]
    floors: dict[str, str] = {engine.name: engine.minimum for engine in manifest.requirements.engines}
    for variant in manifest.variants:
        if not manifest.requirements.engines and variant.format in FORMATS:
            floors.setdefault(FORMATS[variant.format], "")
    engines = [Component(name=name, version=floor, role="engine") for name, floor in sorted(floors.items())]
    tools = [
        Component(name=name, version=version, role="tool") for name, version in sorted(manifest.lineage.tools.items())
    ]
    return files + engines + tools


def bill_of_materials(manifest: Manifest, manifest_sha256: str) -> dict[str, Any]:
    """Return the CycloneDX document of a release as plain values."""
    subject = f"{manifest.name}@{manifest.version}"
    parts = components(manifest)
    listed = [one for one in parts if one.role != "tool"]
    tools = [{"type": "application", "name": one.name, "version": one.version} for one in parts if one.role == "tool"]
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": subject,
        "name": manifest.name,
        "version": manifest.version,
        "hashes": [_hash(manifest_sha256)],
        "properties": [_property("source-sha256", manifest.lineage.source_sha256)],
    }
    if manifest.license:
        model["licenses"] = [{"license": {"name": manifest.license}}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.UUID(manifest_sha256[:32], version=4)}",
        "version": 1,
        "metadata": {"timestamp": manifest.created, "component": model, "tools": {"components": tools}},
        "components": [_listed(one) for one in listed],
        "dependencies": [{"ref": subject, "dependsOn": [_reference(one) for one in listed]}],
    }


def _listed(one: Component) -> dict[str, Any]:
    kind = {"model": "machine-learning-model", "file": "file"}.get(one.role, "library")
    found: dict[str, Any] = {"type": kind, "bom-ref": _reference(one), "name": one.name}
    if one.sha256 is not None:
        found["hashes"] = [_hash(one.sha256)]
    if one.role == "engine":
        found["scope"] = "required"
        found["properties"] = [_property("minimum-version", one.version)] if one.version else []
    return found


def _reference(one: Component) -> str:
    return f"{one.role}:{one.name}"


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"edgewright:{name}", "value": value}


def exposed(
    package: str, devices: Iterable[tuple[ReportedState, bool | None]], releases: Mapping[str, Manifest]
) -> list[Exposed]:
    """Return the devices that run `PACKAGE` or `PACKAGE@VERSION`; a version stands for all that begin with it, `1.17`
    for 1.17.3. `releases` are the manifests by their SHA-256."""
    name, _, version = package.partition("@")
    everything = (one for report, online in devices for one in _on_device(report, online, releases))
    return [one for one in everything if _plain(one.component) == _plain(name) and _covers(version, one.version)]


def _on_device(report: ReportedState, online: bool | None, releases: Mapping[str, Manifest]) -> Iterator[Exposed]:
    device = report.device
    yield Exposed(device=device, online=online, component=AGENT, version=report.agent_version, role="agent")
    for fact, version in sorted(report.facts.items()):
        if fact.startswith("engine."):
            yield Exposed(device=device, online=online, component=fact[7:], version=version, role="engine")
    for slot in report.slots:
        for sha256, kept in _held(slot):
            if sha256 in releases:
                yield from _of_release(device, online, slot.slot, releases[sha256], kept)


def _held(slot: SlotState) -> list[tuple[str, bool]]:
    """Return the manifests that a slot serves or can return to, each once."""
    found: dict[str, bool] = {}
    if slot.serving is not None:
        found[slot.serving.manifest_sha256] = False
    for kept in (slot.last_good, slot.factory):
        if kept is not None:
            found.setdefault(kept.manifest_sha256, True)
    return list(found.items())


def _of_release(device: Name, online: bool | None, slot: Name, manifest: Manifest, kept: bool) -> Iterator[Exposed]:
    release = f"{manifest.name} {manifest.version}"
    own = Component(name=manifest.name, version=manifest.version, role="model")
    for one in (own, *components(manifest)):
        if one.role != "engine":  # which engine runs it, the device itself reports
            yield Exposed(
                device=device, online=online, slot=slot, component=one.name, version=one.version, role=one.role,
                release=release, kept=kept,
            )  # fmt: skip


def _plain(name: str) -> str:
    """Return a name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _covers(wanted: str, version: Version | str) -> bool:
    return not wanted or version == wanted or version.startswith((f"{wanted}.", f"{wanted}-", f"{wanted}+"))
