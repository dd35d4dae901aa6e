"""What `agent doctor` looks at: the things that keep a device from being updated or from answering, each with a remedy.

Every check looks at one thing and returns what it found; none changes anything but a file it writes and removes. Here
are those of what the agent was given and keeps, in `box_checks` those of the box, in `network_checks` those of whom it
talks to. What a running agent says about itself is in `edge_agent.supervisor.status`; deciding what to do about a
reading is the governor's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_agent.bundle import open_bundle
from edge_agent.cli.doctor.box_checks import BOX_CHECKS, CONFIGURATION_CHECKS, write_fix
from edge_agent.cli.doctor.finding import Finding, Target, failure, ok
from edge_agent.cli.doctor.network_checks import NETWORK_CHECKS
from edge_agent.cli.doctor.service_checks import SERVICE_CHECKS
from edge_agent.config.agent_toml import SlotConfig, missing_files
from edge_agent.config.profiles import load_profile
from edge_agent.engines.registry import installed_engines
from edge_agent.identity.files import IdentityFolder
from edge_agent.identity.validity import ENROL_HINT, Enrolled, believed_time, renewal_time, standing
from edge_agent.storage.audit_log import verify_audit
from edge_agent.storage.time_floor import read_floor
from edge_agent.update.preflight import ENGINE_OF
from edge_agent.update.record import UpdateRecord
from edge_contracts.errors import EdgewrightError
from edge_contracts.limits import MIB
from edge_contracts.manifest import Manifest, Variant

EXPIRY_WARNING_DAYS = 7.0
_DAY_S = 86_400.0
_BUILT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No clock that is right shows a time before this code was written."""


def examine(patient: Target) -> Iterable[Finding]:
    """Yield what every check found, as soon as it is known. A check that cannot be made is a failure of its own, said
    once, and the others go on."""
    yield from _examine(
        patient, _files, *BOX_CHECKS, *SERVICE_CHECKS, _clock, _identity, _trust, _engines, *NETWORK_CHECKS, _audit,
        _releases,
    )  # fmt: skip


def examine_configuration(patient: Target) -> Iterable[Finding]:
    """Yield what those checks found that look at the configuration and this machine, and at nobody else."""
    yield from _examine(patient, _files, *CONFIGURATION_CHECKS, *SERVICE_CHECKS, _engines)


def _examine(patient: Target, *checks: Callable[[Target], Iterable[Finding]]) -> Iterable[Finding]:
    said: set[str] = set()
    for check in checks:
        try:
            yield from check(patient)
        except Exception as error:  # whatever it is, the other checks are worth having
            finding = _failed(check.__name__.strip("_").replace("_", " "), error)
            if finding.text not in said:
                yield finding
            said.add(finding.text)


def _failed(check: str, error: Exception) -> Finding:
    if isinstance(error, EdgewrightError):
        return failure(check, str(error), error.hint or "correct what it names, and run doctor again")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return failure(check, f"{where}{error.strerror or error}", write_fix(error.errno))
    return failure(check, f"this check failed itself: {type(error).__name__}: {error}", "report it with this line")


def _files(patient: Target) -> Iterable[Finding]:
    missing = missing_files(patient.config)
    for field, path in missing.items():
        yield failure("files", f"{field}: file not found: {path}", "create the file or correct the path in agent.toml")
    broker = patient.config.broker
    if broker is not None and broker.key_file is not None and Path(broker.key_file).is_file():
        mode = Path(broker.key_file).stat().st_mode
        if mode & 0o077:
            fix = f"chmod 600 {broker.key_file}"
            yield Finding(
                check="files", verdict="warning", text="the device's private key is readable by other users", fix=fix
            )
    if not missing:
        yield ok("files", "all files named in the configuration exist")


def _clock(patient: Target) -> Iterable[Finding]:
    fix = "set the clock: `sudo timedatectl set-ntp true`; updates use the newest signed time meanwhile"
    floor = _json(patient.state.tuf / "floor.json").get("time", 0.0)
    behind = max(_BUILT, float(floor) if isinstance(floor, int | float) else 0.0) - patient.now
    if behind > 0:
        text = f"the clock says {_date(patient.now)}, which is {behind / _DAY_S:.1f} days before the newest signature"
        yield Finding(check="clock", verdict="warning", text=text, fix=fix)
    else:
        yield ok("clock", _date(patient.now))


def _identity(patient: Target) -> Iterable[Finding]:
    """Look at the enrolled identities by which the device is known to its brokers, as `agent enroll` left them."""
    brokers = [broker for broker in (patient.config.broker, patient.config.data.broker) if broker is not None]
    folders = {broker.identity: broker for broker in brokers if broker.tls and broker.certificate_file is None}
    for folder, broker in folders.items():
        identity = IdentityFolder(Path(folder or ""))
        enrolled = identity.current()
        if enrolled is not None:
            files = identity.files(enrolled)
            gone = [path for path in (files.certificate, files.key, files.ca) if not path.is_file()]
            yield _enrolled(enrolled, patient) if not gone else failure("identity", f"{gone[0]} is missing", ENROL_HINT)
        elif broker.username is None:
            yield failure("identity", f"not enrolled: nothing in {folder}", ENROL_HINT)


def _enrolled(enrolled: Enrolled, patient: Target) -> Finding:
    device = patient.config.device
    if (enrolled.tenant, enrolled.device) != (device.tenant, device.id):
        text = (
            f"the certificate is {enrolled.device}'s of {enrolled.tenant}; [device] says {device.id} of {device.tenant}"
        )
        return failure("identity", text, f"correct [device], or {ENROL_HINT}")
    now = believed_time(patient.now, read_floor(patient.state.floor), enrolled)
    text = f"{enrolled.device}'s certificate, serial {enrolled.serial}, is valid until {_date(enrolled.end)}"
    match standing(enrolled, now, chance=1.0):  # the last moment at which a renewal begins
        case "expired":
            return failure("identity", f"the certificate expired on {_date(enrolled.end)}", ENROL_HINT)
        case "due":
            fix = "see `edgewright agent status` for the reason; broker and `edgewright fleet enrollment` must run"
            return Finding(check="identity", verdict="warning", text=f"{text}; its renewal is overdue", fix=fix)
        case _:
            return ok("identity", f"{text}, renewal from {_date(renewal_time(enrolled, 0.0))} on")


def _trust(patient: Target) -> Iterable[Finding]:
    """Look at the expiry of what is trusted. Who signed it was verified when it was stored."""
    if patient.config.trust is None:
        yield Finding(check="trust", verdict="skipped", text="no slot has a channel: updates are off")
        return
    folder = patient.state.tuf / "trusted"
    if not (folder / "timestamp.json").is_file():
        yield Finding(check="trust", verdict="skipped", text="no signed metadata downloaded yet")
        return
    for name in ("timestamp", "snapshot", "targets"):
        signed = _json(folder / f"{name}.json").get("signed", {})
        expires = signed.get("expires", "") if isinstance(signed, dict) else ""
        left_days = (_moment(str(expires)) - patient.now) / _DAY_S
        if left_days < 0:
            fix = "run `edgewright fleet controller`, which re-signs it; until then updates wait and serving continues"
            yield failure("trust", f"{name} metadata expired on {expires}", fix)
        elif name == "targets" and left_days < EXPIRY_WARNING_DAYS:
            fix = "re-sign it with its keys: docs/runbooks/expired-metadata.md"
            text = f"{name} metadata expires on {expires}"
            yield Finding(check="trust", verdict="warning", text=text, fix=fix)
        else:
            yield ok("trust", f"{name} metadata is valid until {expires}")


def _engines(patient: Target) -> Iterable[Finding]:
    engines = installed_engines()
    profile = load_profile(patient.config.device.profile)
    usable = {name: version for name, version in engines.items() if name in profile.engines}
    if not usable:
        fix = "install onnxruntime (base install) or LiteRT (extra `tflite`): docs/how-to/install-device.md"
        yield failure("engines", f"none of {', '.join(profile.engines)} is installed", fix)
        return
    yield ok("engines", ", ".join(f"{name} {version}" for name, version in usable.items()))
    for slot in patient.config.slots:
        if slot.factory is not None:
            yield _factory(slot, usable)


def _factory(slot: SlotConfig, engines: Container[str]) -> Finding:
    bundle = open_bundle(Path(slot.factory or ""))
    runnable = [variant.id for variant in bundle.manifest.variants if _has_engine(variant, bundle.manifest, engines)]
    name = f"factory bundle of {slot.name}"
    if not runnable:
        return failure(
            name,
            "none of its variants can run on the installed engines",
            "install the engine of one of its variants, or use another bundle",
        )
    return ok(
        name,
        f"{bundle.manifest.name} {bundle.manifest.version}, all files intact; usable variants: {', '.join(runnable)}",
    )


def _has_engine(variant: Variant, manifest: Manifest, engines: Container[str]) -> bool:
    if variant.format == "pipeline":
        return all(engine.name in engines for engine in manifest.requirements.engines)
    return ENGINE_OF[variant.format] in engines


def _audit(patient: Target) -> Iterable[Finding]:
    if not patient.state.audit.is_file():
        return
    try:
        verify_audit(patient.state.audit)
        yield ok("audit log", "hash chain intact")
    except (OSError, ValueError) as error:
        yield failure(
            "audit log", str(error), "the log was changed by a person or a failing disk: keep a copy and investigate"
        )


def _releases(patient: Target) -> Iterable[Finding]:
    """Verify every byte of what the slots serve or would go back to."""
    if not patient.state.slots.is_dir():
        return
    for path in sorted(patient.state.slots.glob("*.json")):
        record: UpdateRecord = patient.state.read_record(path.stem)
        for role in ("serving", "last_good"):
            release = getattr(record, role)
            if release is None or (role == "last_good" and release == record.serving):
                continue
            name = f"release {release.version} ({path.stem}, {role.replace('_', ' ')})"
            try:
                open_bundle(patient.state.release(release.manifest_sha256))
                yield ok(name, "all files intact")
            except EdgewrightError as error:
                fix = "it is no longer served; publish a new release, or the factory bundle serves"
                yield failure(name, str(error), fix)


def _json(path: Path) -> dict[str, object]:
    """Return a JSON object on disk, or an empty one: what is damaged is another check's finding."""
    try:
        if os.path.getsize(path) > 16 * MIB:  # noqa: PTH202
            return {}
        value = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}
    return value if isinstance(value, dict) else {}


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
