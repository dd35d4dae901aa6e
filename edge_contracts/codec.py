"""How a contract becomes bytes and bytes become a contract: canonical JSON out, bounded and typed parsing in.

The canonical form is UTF-8 JSON with sorted keys and no white space, so that equal values are equal bytes and a hash
or a signature over them means something. Floats are written in their shortest round-trip form.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_NESTING
from edge_contracts.names import MEANING

T = TypeVar("T")

_PATH_IN_MESSAGE = re.compile(r" - at `\$?([^`]*)`$")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what travels between versions: unknown fields are ignored, so an older reader survives a newer writer."""


class StrictRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a person types: an unknown field is a spelling mistake and an error."""


def encode(value: object) -> bytes:
    """Return the canonical JSON bytes of a contract value."""
    return msgspec.json.encode(value, order="sorted")


def decode(data: bytes, kind: type[T], *, limit: int, what: str) -> T:
    """Parse JSON bytes into `kind`.

    `limit` is in bytes and checked before parsing; nesting is bounded by `MAX_NESTING`.
    Raises ContractError naming `what` and the field.
    """
    if len(data) > limit:
        raise ContractError(f"{len(data)} bytes, over the limit of {limit}", subject=what)
    check_nesting(data, what=what)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise contract_error(error, what) from error


def convert(value: object, kind: type[T], *, what: str) -> T:
    """Check plain values (for example from TOML) against `kind`. Raises ContractError naming `what` and the field."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise contract_error(error, what) from error


def contract_error(error: Exception, what: str) -> ContractError:
    """Turn a parser's complaint into ours: the field's path goes into the subject."""
    text = str(error) or type(error).__name__
    for pattern, meaning in MEANING.items():
        text = text.replace(f"Expected `str` matching regex {pattern!r}", f"Expected {meaning}")
    found = _PATH_IN_MESSAGE.search(text)
    if found is None:
        return ContractError(text, subject=what)
    return ContractError(text[: found.start()], subject=what + found.group(1))


def check_nesting(data: bytes, *, what: str) -> None:
    """Refuse JSON nested deeper than `MAX_NESTING` without building anything from it."""
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return
    depth = 0
    in_string = False
    for token in _STRUCTURE.finditer(data):
        mark = token.group()
        if mark == b'"':
            in_string = not in_string
        elif len(mark) == 1 and not in_string:
            depth += 1 if mark in b"[{" else -1
            if depth > MAX_NESTING:
                raise ContractError(f"nested deeper than {MAX_NESTING}", subject=what)


_STRUCTURE = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)


def plain(value: Any) -> Any:
    """Return the value as dicts, lists, strings and numbers, for `--json` outputs and templates."""
    return msgspec.to_builtins(value)
