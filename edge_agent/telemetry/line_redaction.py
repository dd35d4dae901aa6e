"""What of a process's line may leave the device: no secrets, no inputs, a bounded length.

What could be a credential is hidden in every line. The worker, which sees requests, is held to a list of what is known
to hold none: frames of a traceback, the type of an error, the engine's own lines without quoted text and numbers. Of
any other line only the length is told. Imported when an excerpt is asked for: most devices never compile these
patterns.
"""

from __future__ import annotations

import re
from typing import Final

MAX_LINE_CHARS: Final = 400
"""What is told of one line."""

HIDDEN: Final = "[hidden]"

_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SECRETS: Final = (
    (re.compile(r"(?i)\b(bearer|basic|digest|apikey)\s+[A-Za-z0-9+/=._~-]{6,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(?i)([\w.-]*(?:passw(?:or)?d|passphrase|passwd|\bpwd|secret|token|credential|authorization|cookie|"
            r"api[-_ ]?key|private[-_ ]?key|access[-_ ]?key)[\w.-]*[\"']?\s*(?:[:=]|\bis\b)\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|\S+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{HIDDEN}@"),
    (re.compile(r"(?<=\w)\?[^\s?]*=[^\s]*"), f"?{HIDDEN}"),
    (re.compile(r"-----BEGIN[^-]*-----.*"), HIDDEN),
    (re.compile(r"\bey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
)
_BLOB = re.compile(r"(?<![A-Za-z0-9+/=._-])[A-Za-z0-9+_-][A-Za-z0-9+/_-]{31,}={0,2}(?![A-Za-z0-9])")
_BODY = re.compile(r"^[A-Za-z0-9+/]{40,}={0,2}$|^[A-Za-z0-9+/]+={1,2}$")

_FRAME = re.compile(r'^\s+File "[^"]*", line \d+(?:, in [\w.<>]+)?$|^Traceback \(most recent call last\):$')
_CARETS = re.compile(r"^\s+[~^ ]+$")
_ERROR = re.compile(r"^(?:[A-Za-z_][\w]*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning|Fail|Iteration)(?=:|$)")
_ENGINE = re.compile(
    r"^(?:\S+ )?\S+ \[[VIWEF]:onnxruntime|^worker [\w.-]+: |^(?:ERROR|WARNING|INFO): |^Fatal Python error: |"
    r"^Current thread |^Thread 0x|^terminate called |^ {2}what\(\): |^Segmentation fault|^Killed|^Aborted|^malloc|"
    r"^free\(\)|^double free"
)
_QUOTED = re.compile(r"\"[^\"]*\"?|'[^']*'?")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.,_]*(?:[eE][-+]?\d+)?(?!\w)")


def shareable(line: str, origin: str | None) -> str:
    """Return what may be told of a line of at most some thousand characters that a process has written: the "updater",
    "trial" or "worker"; None: the supervisor."""
    line = _UNPRINTABLE.sub("", line.rstrip("\r\n")).replace("\t", "    ")
    line = _without_inputs(line) if origin == "worker" else _without_secrets(line)
    return line if len(line) <= MAX_LINE_CHARS else f"{line[: MAX_LINE_CHARS - 3]}..."


def _without_secrets(line: str) -> str:
    if _BODY.match(line.strip()):
        return HIDDEN
    for pattern, instead in _SECRETS:
        line = pattern.sub(instead, line)
    return _BLOB.sub(_hide_blob, line)


def _hide_blob(found: re.Match[str]) -> str:
    """Hide a long run of letters that looks drawn by lot; a digest in hexadecimal is none, a path neither."""
    text = found[0]
    mixed = any(c.islower() for c in text) and any(c.isupper() for c in text) and any(c.isdigit() for c in text)
    return HIDDEN if mixed else text


def _without_inputs(line: str) -> str:
    if not line.strip() or _FRAME.match(line) or _CARETS.match(line):
        return line
    if error := _ERROR.match(line):
        return error[0]
    if _ENGINE.match(line):
        return _NUMBER.sub("#", _QUOTED.sub("'...'", _without_secrets(line)))
    return f"(a line of {len(line)} characters)"
