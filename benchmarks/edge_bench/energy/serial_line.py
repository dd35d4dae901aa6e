"""A USB power meter on a serial line that prints readings as text: `5.08 V 0.61 A`, `V=5.08,A=0.61`, `3.1 W`,
`{"power": 3.1}`. The last whole line counts."""

from __future__ import annotations

import os
import re
import termios
import threading

from edge_contracts.errors import OperatorError

BAUD = 115_200
MOST_LINE = 4096
"""Bytes without a line's end after which they are thrown away: what comes is not text of a meter."""

_NUMBER = r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_WORDS = {
    "watts": r"(?:W|watts?|power(?:_w)?|P)",
    "volts": r"(?:V|volts?|voltage|U)",
    "amperes": r"(?:A|amps?|amperes?|current|I)",
}
_FORMS = {
    name: re.compile(rf"(?:\b{word}\b[\"']?\s*[:=]\s*{_NUMBER})|(?:{_NUMBER}\s*{word}\b)", re.IGNORECASE)
    for name, word in _WORDS.items()
}


def watts_of(line: str) -> float | None:
    """Return the watts that a line tells, or the product of its volts and amperes; None when it tells neither."""
    watts = _value("watts", line)
    if watts is not None:
        return watts
    volts, amperes = _value("volts", line), _value("amperes", line)
    return None if volts is None or amperes is None else volts * amperes


def _value(name: str, line: str) -> float | None:
    match = _FORMS[name].search(line)
    return None if match is None else float(match[1] or match[2])


class SerialMeter:
    """Reads a device named `DEVICE` or `DEVICE@BAUD`. Raises OperatorError when it cannot be opened."""

    def __init__(self, named: str) -> None:
        device, _, baud = named.partition("@")
        self.name = f"meter at {device}"
        self._subject = f"--meter serial:{named}"
        speed = getattr(termios, f"B{baud or BAUD}", None)
        if speed is None:
            raise OperatorError(f"{baud} is no speed of a serial line", subject=self._subject)
        try:
            self._descriptor = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            _raw(self._descriptor, speed)
        except (OSError, termios.error) as error:
            said = error.args[1] if len(error.args) > 1 else str(error)
            raise OperatorError(f"cannot be opened: {said}", subject=self._subject) from error
        self._pending, self._watts = b"", None
        self._lock = threading.Lock()

    _watts: float | None

    def watts(self) -> float | None:
        """Return the last reading; None before the first."""
        with self._lock:
            try:
                self._pending += os.read(self._descriptor, MOST_LINE)
            except BlockingIOError:
                pass
            except OSError:
                return None
            *lines, self._pending = self._pending.split(b"\n")
            self._pending = self._pending[-MOST_LINE:]
            for line in lines:
                found = watts_of(line.decode("ascii", errors="replace"))
                self._watts = self._watts if found is None else found
            return self._watts


def _raw(descriptor: int, speed: int) -> None:
    """Set the line to bytes as they come, eight bits, no parity, at a speed."""
    attributes = termios.tcgetattr(descriptor)
    attributes[0] = attributes[1] = attributes[3] = 0
    attributes[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
    attributes[4] = attributes[5] = speed
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
