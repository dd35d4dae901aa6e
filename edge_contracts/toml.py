"""TOML from outside, bounded: what a person wrote, or what only claims to be that.

The standard library's parser recurses, converts numbers of any length, and takes time quadratic in the length of a
dotted key; each of these is bounded or typed here. Checking the values is `edge_contracts.codec.convert`'s.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_CONFIG_BYTES, MAX_NESTING

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[.=,\n]',
    re.DOTALL,
)


def decode_toml(data: bytes, *, what: str) -> dict[str, Any]:
    """Parse a TOML file of at most `MAX_CONFIG_BYTES`. Raises ContractError naming `what`."""
    if len(data) > MAX_CONFIG_BYTES:
        raise ContractError(f"{len(data)} bytes, over the limit of {MAX_CONFIG_BYTES}", subject=what)
    try:
        text = data.decode()
        _check_keys(text, what)
        return tomllib.loads(text)
    except ContractError:
        raise
    except (ValueError, RecursionError) as error:
        raise ContractError(f"invalid TOML: {error}", subject=what) from error


def _check_keys(text: str, what: str) -> None:
    """Refuse keys of more than `MAX_NESTING` dotted parts."""
    dots = 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark == ".":
            dots += 1
            if dots >= MAX_NESTING:
                raise ContractError(f"a key of more than {MAX_NESTING} parts", subject=what)
        elif mark in "=,\n":
            dots = 0
