"""The last lines of a slot's processes, as they may leave the device: bounded, without secrets, without inputs.

They travel with the report of a release that was rejected or rolled back. What could be a credential is hidden in every
line. The worker, which sees requests, is held to a list of what is known to hold none: frames of a traceback, the type
of an error, the engine's own lines without quoted text and numbers. Of any other line only the length is told. Where
lines come from is in `edge_agent.supervisor.process_output`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from edge_contracts.limits import MAX_EXCERPT_BYTES, MAX_EXCERPT_LINES

Origin = Literal["updater", "trial", "worker"]

MAX_LINE_CHARS: Final = 400
"""What is told of one line."""

MAX_KEPT_CHARS: Final = 1000
"""What is remembered of one line."""

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


def shareable(line: str, origin: Origin | None) -> str:
    """Return what may be told of a line that a process has written; None: the supervisor."""
    line = _UNPRINTABLE.sub("", line[:MAX_KEPT_CHARS].rstrip("\r\n")).replace("\t", "    ")
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


class RecentLines:
    """The last lines of one slot's processes, oldest first. `clock` gives the time of day as text.

    They are kept as they came, cut to a bounded length; what may be told of them is worked out when they are asked for,
    so that a process that floods its log costs nothing more.
    """

    def __init__(self, clock: Callable[[], str]) -> None:
        self._clock = clock
        self._lines: deque[tuple[str, Origin | None, str]] = deque(maxlen=MAX_EXCERPT_LINES)

    def add(self, origin: Origin, line: str) -> None:
        """Take in a line that a process has written."""
        if line.strip():
            self._lines.append((f"{self._clock()} {origin}: ", origin, line[:MAX_KEPT_CHARS]))

    def note(self, about: Origin, text: str) -> None:
        """Take in what the supervisor says about a process, in words of ours."""
        self._lines.extend((f"{self._clock()} {about}> ", None, line[:MAX_KEPT_CHARS]) for line in text.splitlines())

    def forget(self) -> None:
        """Begin anew: another release is concerned."""
        self._lines.clear()

    def excerpt(self) -> str:
        """Return the newest lines that fit, oldest first; empty if there is none."""
        taken: list[str] = []
        room = MAX_EXCERPT_BYTES
        for prefix, origin, line in reversed(self._lines):
            told = prefix + shareable(line, origin)
            room -= len(told.encode("utf-8", "replace")) + 1
            if room < 0:
                break
            taken.append(told)
        return "\n".join(reversed(taken))
