"""Checks of `agent doctor` and `agent check` for an agent that runs as the shipped unit: what its sandbox lets it see.

A person looks with root's eyes, the service with those of a user of its own, without /home and with a /tmp of its own.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_agent.cli.doctor.finding import Finding, Target, failure, ok
from edge_agent.config.agent_toml import CREDENTIALS, AgentConfig, BrokerConfig

UNIT_STATE = "/var/lib/edgewright"
"""StateDirectory of the unit: whoever keeps the state there is taken to run it."""

HIDDEN = {
    "/home": "ProtectHome=yes hides it",
    "/root": "ProtectHome=yes hides it",
    "/run/user": "ProtectHome=yes hides it",
    "/tmp": "the service has a /tmp of its own",  # noqa: S108 - named, not used
    "/var/tmp": "the service has a /var/tmp of its own",  # noqa: S108
}
"""What the unit keeps from the agent, and why."""


def _service(patient: Target) -> Iterable[Finding]:
    if patient.config.device.state != UNIT_STATE:
        return
    found = ((field, unreadable(path)) for field, path in _read(patient.config))
    blocked = [(field, why) for field, why in found if why is not None]
    for field, why in blocked:
        fix = "put it below /etc/edgewright or /usr/share, readable for all (secrets: LoadCredential= of the unit)"
        yield failure("service", f"{field}: the service cannot read {why}", fix)
    if not blocked:
        yield ok("service", "the shipped unit can read every file named in the configuration")


def unreadable(path: Path) -> str | None:
    """Return why a user of its own under the shipped unit cannot read a file or folder, or None if it can."""
    if str(path).startswith((CREDENTIALS, f"{UNIT_STATE}/")):
        return None
    for folder, reason in HIDDEN.items():
        if path.is_relative_to(folder):
            return f"{path}: {reason}"
    parts = (*((folder, False) for folder in reversed(path.parents)), (path, True))
    inner = ((below, True) for below in sorted(path.rglob("*")))
    return next((why for part, whole in (*parts, *inner) if (why := _closed(part, whole=whole)) is not None), None)


def _closed(path: Path, *, whole: bool) -> str | None:
    """Return why others may not read a file or list a folder, or, unless `whole`, pass through it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"{path}: {error.strerror}"
    needed = (stat.S_IROTH if whole else 0) | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    if mode & needed == needed:
        return None
    return f"{path}: its mode is {stat.S_IMODE(mode):04o}, and the service runs as a user of its own"


def _read(config: AgentConfig) -> Iterator[tuple[str, Path]]:
    """Give what the agent reads, by the field that names it; what is not there is another check's."""
    named: dict[str, str | None] = {"config.trust.root": config.trust.root if config.trust else None}
    for where, broker in (("broker", config.broker), ("data.broker", config.data.broker)):
        named |= {f"config.{where}.{name}": path for name, path in _files_of(broker).items()}
    for slot in config.slots:
        named[f"config.slots[{slot.name}].factory"] = slot.factory
        named[f"config.slots[{slot.name}].capture.key"] = slot.capture.key if slot.capture else None
    if config.device.profile.endswith(".toml"):
        named["config.device.profile"] = config.device.profile
    yield from ((field, Path(path)) for field, path in named.items() if path is not None and os.path.exists(path))  # noqa: PTH110


def _files_of(broker: BrokerConfig | None) -> dict[str, str | None]:
    names = ("password_file", "ca_file", "certificate_file", "key_file", "identity")
    return {} if broker is None else {name: getattr(broker, name) for name in names}


def _status_group(patient: Target) -> Iterable[Finding]:
    group = patient.config.device.status_group
    if group is None:
        return
    try:
        grp.getgrnam(group)
    except KeyError:
        fix = f"sudo groupadd --system {group}, and SupplementaryGroups={group} in the unit"
        yield failure("status group", f"config.device.status_group: no group {group!r}", fix)


SERVICE_CHECKS = (_service, _status_group)
