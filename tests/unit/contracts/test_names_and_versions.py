"""Names, paths, digests, times and the order of versions."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contracts.errors import ContractError
from edge_contracts.names import (
    VERSION_PATTERN,
    Name,
    Sha256,
    UtcTime,
    Version,
    check_path,
    parse_time,
    version_key,
)

# Semantic Versioning 2.0.0, section 11: its own examples, in rising order.
RISING = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
    "2.2.0",
    "2.10.0",
    "10.0.0",
]
VERSIONS = st.from_regex(VERSION_PATTERN, fullmatch=True)
BAD_PATHS = [
    "",
    "/etc/passwd",
    "../outside",
    "a/../../b",
    "a//b",
    "./a",
    "a/.",
    ".hidden",
    "a/.git/config",
    "a\\b",
    "C:/x",
    "a\x00b",
    "a\n",
    "a/b\n",
    "ä",
    "~/x",
    "-rf",
    "a/" * 6 + "b",
    "x" * 201,
]


def test_versions_rise_as_semver_says() -> None:
    for lower, higher in itertools.pairwise(RISING):
        assert version_key(lower) < version_key(higher)


@given(first=VERSIONS, second=VERSIONS)
def test_only_equal_versions_are_of_equal_precedence(first: str, second: str) -> None:
    assert (version_key(first) == version_key(second)) == (first == second)


@given(version=VERSIONS)
def test_a_pre_release_lies_below_its_release(version: str) -> None:
    core, _, pre = version.partition("-")
    assert not pre or version_key(version) < version_key(core)


@pytest.mark.parametrize(
    "text", ["1", "1.0", "v1.0.0", "1.0.0+build", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0\n", "1.0.-1"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, Version)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_leaves_the_bundle_is_refused(path: str) -> None:
    with pytest.raises(ContractError, match="field"):
        check_path(path, what="field")


@pytest.mark.parametrize("path", ["a", "models/int8.onnx", "a/b/c/d/e/f", "_x/y-1+2.bin", "x" * 200])
def test_a_plain_relative_path_is_accepted(path: str) -> None:
    assert check_path(path, what="field") == path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Name, "dev\n"),
        (Name, ".."),
        (Name, "a/b"),
        (Name, ""),
        (Sha256, "A" * 64),
        (Sha256, "a" * 63),
        (Sha256, "a" * 64 + "\n"),
        (UtcTime, "2026-11-22T06:00:00"),
        (UtcTime, "2026-11-22T06:00:00+01:00"),
        (UtcTime, "2026-11-22T06:00:00Z\n"),
    ],
)
def test_a_word_out_of_its_pattern_is_refused(kind: type, text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, kind)


def test_a_day_that_does_not_exist_is_a_typed_error() -> None:
    assert parse_time("2026-02-28T23:59:59.5Z", what="deadline").isoformat() == "2026-02-28T23:59:59.500000+00:00"
    for text in ("2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z", "0000-01-01T00:00:00Z"):
        with pytest.raises(ContractError, match="deadline"):
            parse_time(text, what="deadline")
