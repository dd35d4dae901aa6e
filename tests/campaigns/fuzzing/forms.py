"""How fuzzed bytes are taken apart and put together again, so that a change reaches what lies behind the syntax.

A form turns bytes into a tree of plain values and back; `mutated` changes one node of the tree. What has no form, or
no longer parses, is changed as bytes by the fuzzer itself. Which bytes go where is in `fuzz_surfaces`.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

Bytes = Callable[[bytes], bytes]

NO_HEADER: Final = 2**32 - 1
"""Instead of the length of a request's JSON: the request has no such header."""

_NUMBERS: Final = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63))
_FLOATS: Final = (0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), 1e22)
_TEXTS: Final = (
    "",
    "\0",
    "a\n",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "manifest.json",
    "%2e%2e",
    "\ud800",
    "é",
    "a" * 300,
    "0" * 64,
    "1.0.0",
    "2026-02-30T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "ew/v1/default/d/dev-1/rsp/n",
    "#",
    "+",
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """`take` may raise anything for bytes that are not of the form, `make` for values that it cannot hold."""

    take: Callable[[bytes], Any]
    make: Callable[[Any], bytes]
    attacks: tuple[bytes, ...] = ()
    """Bytes that have broken parsers of this form: nesting, long numbers, text that is no text."""


def mutated(form: Form, data: bytes, choice: random.Random, words: list[str], change: Bytes) -> bytes | None:
    """Return `data` with one or more nodes of its tree changed, None if it is not of the form.

    `words` are strings worth trying, field names above all; `change` is the fuzzer's own way to change bytes.
    """
    try:
        tree = form.take(data)
        for _ in range(choice.choice((1, 1, 1, 2, 4))):
            tree = _changed(tree, choice, words, change)
        return form.make(tree)
    except Exception:
        return None


def _changed(tree: Any, choice: random.Random, words: list[str], change: Bytes) -> Any:
    """Walk down to a random node and return the tree with that node changed. The tree itself may be changed."""
    if isinstance(tree, dict | list) and tree and choice.random() < 0.85:
        key = choice.choice(list(tree)) if isinstance(tree, dict) else choice.randrange(len(tree))
        fate = choice.random()
        if fate < 0.06:
            del tree[key]
        elif fate < 0.1 and isinstance(tree, list):
            tree.insert(key, json.loads(json.dumps(tree[key])))
        elif fate < 0.14 and isinstance(tree, dict):
            tree[choice.choice(words)] = tree[key]
        else:
            tree[key] = _changed(tree[key], choice, words, change)
        return tree
    return _replaced(tree, choice, words, change)


def _replaced(node: Any, choice: random.Random, words: list[str], change: Bytes) -> Any:
    if isinstance(node, bytes) and choice.random() < 0.9:
        return change(node)
    if isinstance(node, str) and choice.random() < 0.3:
        return change(node.encode()).decode("utf-8", "replace")
    if isinstance(node, int | float) and choice.random() < 0.3:
        return node + choice.choice((-1, 1, 10, 1000))
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: choice.choice(_NUMBERS),
        lambda: choice.choice(_FLOATS),
        lambda: choice.choice(_TEXTS),
        lambda: choice.choice(words),
        lambda: choice.choice((None, True, False, [], {})),
        lambda: [node] * (2 if isinstance(node, dict | list | bytes) else 70),
        lambda: {choice.choice(words): node},
    )
    return choice.choice(kinds)()


# Forms


def blob_of(value: object) -> bytes:
    """Return bytes as they are. Raises TypeError for anything else: of an integer, `bytes` would make that many."""
    if not isinstance(value, bytes):
        raise TypeError(type(value).__name__)
    return value


def _make_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()  # writes NaN and single surrogates, which a hostile writer would too


def _take_lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def _take_infer(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", data)
    size = len(data) - 4 if length == NO_HEADER else length
    return {"json": json.loads(data[4 : 4 + size]), "blob": data[4 + size :]}


def _make_infer(tree: Any) -> bytes:
    head, blob = _make_json(tree["json"]), blob_of(tree["blob"])
    return struct.pack("<I", len(head) if blob else NO_HEADER) + head + blob


def _make_toml(tree: Any) -> bytes:
    return "".join(f"{json.dumps(key)} = {_toml_value(value)}\n" for key, value in tree.items()).encode()


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps("" if value is None else value)


def _take_zip(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _make_zip(tree: Any) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, blob_of(content))
    return data.getvalue()


_JSON_ATTACKS: Final = (
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b'{"timestamp_version":1,"detail":{},"x":' + b"[" * 60_000,
    b'{"slot":"main","day":"","kind":"event","x":' + b"[" * 60_000,
    b'{"slot":"\xff","device":"\xff","day":"\xff","name":"\xff"}',
    b'["\xff"]',
    b'"\\ud800"',
    b'{"serial":' + b"9" * 60_000 + b"}",
    b'{"' + b"a" * 60_000 + b'":1}',
    b"{" + b'"a":1,' * 10_000 + b'"a":1}',
    b"",
)
_TOML_ATTACKS: Final = (
    b"a = " + b"[" * 100_000,
    b"a = " + b"{a=" * 50_000,
    b"a = " + b"9" * 5_000,
    b"a = 0x" + b"f" * 200_000,
    b"a." * 100_000 + b"a = 1",
    b"[" + b"a." * 100_000 + b"a]",
    b"[[" + b"a." * 20_000 + b"a]]\n" * 3,
    b'name = "\xff"',
    b"a = 1979-13-40T99:99:99Z",
    b"a = 9e999999\nb = nan\nc = -inf",
    b"a = 1\n" * 2,
    b'"" = 1\n[""]',
)
_MSGPACK_ATTACKS: Final = (
    b"\x91" * 100_000,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xd6\xff\x00\x00\x00\x00",
)
JSON: Final = Form(take=json.loads, make=_make_json, attacks=_JSON_ATTACKS)
JSON_LINES: Final = Form(
    take=_take_lines,
    make=lambda tree: b"".join(_make_json(line) + b"\n" for line in tree),
    attacks=tuple(attack + b"\n" for attack in _JSON_ATTACKS),
)
MSGPACK: Final = Form(take=msgspec.msgpack.decode, make=msgspec.msgpack.encode, attacks=_MSGPACK_ATTACKS)
TOML: Final = Form(take=lambda data: tomllib.loads(data.decode()), make=_make_toml, attacks=_TOML_ATTACKS)
INFER: Final = Form(
    take=_take_infer,
    make=_make_infer,
    attacks=tuple(struct.pack("<I", NO_HEADER) + attack for attack in _JSON_ATTACKS),
)
"""An inference request: four bytes with the length of its JSON, the JSON, binary tensors."""
ZIP: Final = Form(take=_take_zip, make=_make_zip)
RAW: Final = Form(take=blob_of, make=blob_of, attacks=(b"", b"\xff" * 1000, bytes(1000)))
"""No form: every change is the fuzzer's own."""
