"""The doctor's look at what a carrier brings: whether it is a repository's timestamp, and how old.

Signatures are the updater's business; here it is only told apart from a login page, a stranger's file and a copy that
nobody renews any more.
"""

from __future__ import annotations

from msgspec import Struct

from edge_agent.cli.doctor.finding import Finding, failure, ok
from edge_contracts.codec import decode
from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_DOCUMENT_BYTES
from edge_contracts.names import parse_time


class _Signed(Struct, frozen=True, kw_only=True, rename={"kind": "_type"}):
    kind: str
    version: int
    expires: str


class _Timestamp(Struct, frozen=True, kw_only=True):
    signed: _Signed


def judge_timestamp(check: str, where: str, data: bytes, now: float) -> Finding:
    """Return what `data`, fetched as timestamp.json from `where`, says of that carrier. `now` in seconds since 1970."""
    try:
        signed = decode(data, _Timestamp, limit=MAX_DOCUMENT_BYTES, what="timestamp.json").signed
        expires = parse_time(signed.expires, what="expires").timestamp()
        if signed.kind != "timestamp":
            raise ContractError(f"is of type {signed.kind[:40]!r}", subject="timestamp.json")
    except ContractError as error:
        start = data[:60].decode("utf-8", "replace").split("\n", maxsplit=1)[0]
        fix = "open that URL from this device: a login page, a proxy or the wrong folder answers there"
        return failure(check, f"{where} does not bring a repository's timestamp ({error}); it begins {start!r}", fix)
    told = f"{where} has timestamp version {signed.version}, which expires {signed.expires}"
    if expires < now:
        fix = "the copy is not renewed: check its synchronization, the fleet controller, and this device's clock"
        return Finding(check=check, verdict="warning", text=f"{told}: expired", fix=fix)
    return ok(check, told)
