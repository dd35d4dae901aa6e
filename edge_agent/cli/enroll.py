"""The command `edgewright agent enroll`: redeem a claim."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import msgspec

from edge_agent.config.agent_toml import load_config
from edge_agent.enrollment.client import redeem_claim
from edge_agent.errors import ConfigError
from edge_agent.identity.files import IdentityFolder
from edge_contracts.enrollment import Claim, parse_claim
from edge_contracts.limits import MAX_CLAIM_BYTES


@click.command()
@click.option(
    "--claim",
    "claim_file",
    type=click.Path(path_type=Path),
    required=True,
    help="Claim file from `edgewright fleet enroll`.",
)
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The agent's configuration, agent.toml.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def enroll(claim_file: Path, config: Path, timeout: float, as_json: bool) -> None:
    """Enroll this device: exchange a claim for its certificate.

    The claim comes from `edgewright fleet enroll`. The private key is generated here and never leaves the device. If
    the reply is lost, run the command again: the same claim returns the same certificate, and a device that was revoked
    meanwhile is told so. A running agent loads the new certificate and renews it without further commands.

    \b
    Example:
      edgewright agent enroll --claim dev-0001.claim --config /etc/edgewright/agent.toml
    """
    found = load_config(config)
    claim = _read(claim_file)
    if (claim.device, claim.tenant) != (found.device.id, found.device.tenant):
        raise ConfigError(
            f"the claim is for {claim.device!r} of tenant {claim.tenant!r}",
            subject="config.device.id",
            hint=f"this device is {found.device.id!r} of tenant {found.device.tenant!r}",
        )
    broker = found.broker
    if broker is None or broker.identity is None or not broker.tls:
        raise ConfigError("enrollment needs `tls = true` and `identity` in [broker]", subject="config.broker.tls")
    if broker.certificate_file is not None:
        hint = "remove certificate_file, key_file and ca_file from [broker]"
        raise ConfigError("conflicts with `identity`", subject="config.broker.certificate_file", hint=hint)
    redeemed = redeem_claim(claim, IdentityFolder(Path(broker.identity)), broker, timeout, time.time())
    enrolled = redeemed.enrolled
    if as_json:
        unchecked = {"unchecked": redeemed.doubt} if redeemed.doubt else {}
        click.echo(json.dumps(msgspec.to_builtins(enrolled) | unchecked))
        return
    click.echo(f"{enrolled.device} is enrolled; its certificate is in {broker.identity}. Delete {claim_file}.")
    if redeemed.doubt:
        text = f"It was enrolled before, and could not ask whether its certificate still holds: {redeemed.doubt}"
        click.echo(text, err=True)


def _read(path: Path) -> Claim:
    try:
        with path.open("rb") as file:
            return parse_claim(file.read(MAX_CLAIM_BYTES + 1))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", subject=str(path)) from error
