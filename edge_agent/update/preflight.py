"""Whether a device has what a release requires, before the first byte of it is fetched. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from msgspec import Struct

from edge_contracts.manifest import Manifest
from edge_contracts.profile import DeviceProfile

ENGINE_OF = {"onnx": "onnxruntime", "tflite": "litert"}
DISK_RESERVE_MB = 16.0
"""What stays free for records, audit and telemetry whatever is installed, in megabytes."""

MIB = 1024 * 1024


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """What the device has: engine versions by name, megabytes of memory the box can give now, of memory the agent's own
    limits leave, and of disk free. None where the device cannot say, or has no limit: then it is not judged."""

    architecture: str
    engines: Mapping[str, str]
    available_memory_mb: float | None
    memory_limit_left_mb: float | None = None
    disk_free_mb: float


class Shortfall(Struct, frozen=True, kw_only=True):
    """What is missing: `reason` is architecture, engine, memory, memory-budget, disk or disk-budget."""

    reason: str
    text: str


EXTRAS = {
    "onnxruntime": "pip install onnxruntime",
    "litert": "install the extra 'tflite' (from a checkout: pip install '.[tflite]')",
}
"""How an engine comes onto a device."""

REFUSED_FOR_GOOD = frozenset({"architecture", "engine", "memory-budget", "disk-budget"})
"""Shortfalls that last until somebody changes the device. The others pass by themselves."""


def fingerprint(facts: DeviceFacts, profile: DeviceProfile) -> str:
    """Return what names the facts a lasting refusal depends on: the engines here, and what the profile allows. Another
    name means that a release refused under the old one may fit now."""
    engines = [f"{name} {version}" for name, version in sorted(facts.engines.items())]
    model = profile.model
    budgets = [model.memory_mb, model.disk_mb, model.latency_ms, model.load_s, model.threads]
    told = [facts.architecture, profile.name, *engines, "allowed", *sorted(profile.engines), *map(str, budgets)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def preflight(manifest: Manifest, facts: DeviceFacts, profile: DeviceProfile, fetched_bytes: int) -> Shortfall | None:
    """Return what the device lacks for the release, or None. `fetched_bytes` of it lie on the disk already."""
    needs = manifest.requirements
    if needs.architectures and facts.architecture not in needs.architectures:
        needed = " or ".join(needs.architectures)
        return Shortfall(reason="architecture", text=f"needs {needed}, this device is {facts.architecture}")
    lacking = _engine_lacking(manifest, facts, profile)
    if lacking is not None:
        return Shortfall(reason="engine", text=lacking)
    size_mb = manifest.total_bytes / MIB
    to_fetch_mb = size_mb - fetched_bytes / MIB
    checks = (
        ("memory-budget", "memory", needs.memory_mb, profile.model.memory_mb),
        ("memory", "memory available", needs.memory_mb, facts.available_memory_mb),
        ("memory", "left by the agent's memory limit", needs.memory_mb, facts.memory_limit_left_mb),
        ("disk-budget", "disk", size_mb, profile.model.disk_mb),
        ("disk", "disk free", to_fetch_mb + DISK_RESERVE_MB, facts.disk_free_mb),
    )
    for reason, what, wanted, have in checks:
        if have is not None and wanted > have:
            return Shortfall(reason=reason, text=f"needs {wanted:.1f} MB, {what}: {have:.1f} MB")
    return None


def _engine_lacking(manifest: Manifest, facts: DeviceFacts, profile: DeviceProfile) -> str | None:
    """At least one engine that can run a variant has to be here, allowed by the profile and new enough."""
    needed: dict[str, str] = {engine.name: engine.minimum for engine in manifest.requirements.engines}
    for variant in manifest.variants:
        if not manifest.requirements.engines and variant.format in ENGINE_OF:
            needed[ENGINE_OF[variant.format]] = "0"
    if not needed:
        return None  # a pipeline that does not say: its trial will
    for name, minimum in needed.items():
        version = facts.engines.get(name)
        if version is not None and name in profile.engines and _numbers(version) >= _numbers(minimum):
            return None
    return "; ".join(_engine_word(name, minimum, facts, profile) for name, minimum in sorted(needed.items()))


def _engine_word(name: str, minimum: str, facts: DeviceFacts, profile: DeviceProfile) -> str:
    """Say what keeps one engine that would do from doing, and what to do about it."""
    needs = f"needs {name}" if minimum == "0" else f"needs {name} {minimum} or newer"
    if name not in profile.engines:
        return f"{needs}, which profile {profile.name} does not allow"
    version = facts.engines.get(name)
    here = "which is not installed" if version is None else f"{version} is installed"
    return f"{needs}, {here}: {EXTRAS[name]}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
