"""The words contracts are made of: names, versions, digests, paths and times, each with the pattern that defines it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_PATH_CHARS, MAX_PATH_DEPTH, MAX_SAMPLE_TAG_CHARS, MAX_STREAM_CHARS

# Every pattern ends in `(?!\n)$` because `$` alone, in Python, also matches before a final line feed.
_END = r"(?!\n)$"
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_IDENTIFIER = r"(?!0[0-9]+(?![0-9A-Za-z]))[0-9A-Za-z]{1,16}"

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}" + _END
VERSION_PATTERN = rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_IDENTIFIER}(\.{_IDENTIFIER}){{0,3}})?" + _END
SHA256_PATTERN = r"^[0-9a-f]{64}" + _END
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z" + _END

MEANING = {
    NAME_PATTERN: "letters, digits, '_', '.' and '-', at most 64, beginning with a letter or a digit",
    VERSION_PATTERN: "a semantic version such as 1.2.0 or 1.2.0-rc.1",
    SHA256_PATTERN: "a SHA-256 in 64 lower-case hexadecimal digits",
    TIME_PATTERN: "a UTC time such as 2026-11-22T06:00:00Z",
}
"""What each pattern asks for, in words for people."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="Letters, digits, '_', '.', '-'; at most 64.")]
SampleTag = Annotated[Name, Meta(max_length=MAX_SAMPLE_TAG_CHARS, description="Where a request's samples come from.")]
StreamNumber = Annotated[int, Meta(ge=0, description="A stream, whose samples follow each other.")]
StreamName = Annotated[str, Meta(max_length=MAX_STREAM_CHARS, description="A stream, whose samples follow each other.")]
Version = Annotated[str, Meta(pattern=VERSION_PATTERN, description="Semantic version, major.minor.patch[-pre].")]
Sha256 = Annotated[str, Meta(pattern=SHA256_PATTERN, description="SHA-256, 64 lower-case hexadecimal digits.")]
UtcTime = Annotated[str, Meta(pattern=TIME_PATTERN, description="UTC time, RFC 3339, ending in Z.")]
RelativePath = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_CHARS, description="Path inside the bundle.")]
Text = Annotated[str, Meta(max_length=2000)]

_SEGMENT = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")


def check_path(path: str, *, what: str) -> str:
    """Return `path` if it is a plain relative POSIX path that stays inside its folder, else raise ContractError.

    An allow-list of characters: no empty, hidden, `.` or `..` segment, no drive, no backslash, no control character.
    """
    segments = path.split("/")
    good = len(path) <= MAX_PATH_CHARS and len(segments) <= MAX_PATH_DEPTH
    if not good or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise ContractError(f"not a path inside the bundle: {path[:80]!r}", subject=what)
    return path


def parse_time(text: str, *, what: str) -> datetime:
    """Return the UTC time a `UtcTime` names; the pattern alone lets 30 February through. Raises ContractError."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ContractError(f"not a time: {text[:40]!r}", subject=what) from error


def version_key(version: str) -> tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]:
    """Return a key that sorts versions by the precedence rules of Semantic Versioning 2.0.0, section 11."""
    core, _, pre = version.partition("-")
    major, minor, patch = (int(part) for part in core.split("."))
    identifiers = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in pre.split(".")) if pre else ()
    return (major, minor, patch, 0 if pre else 1, identifiers)
