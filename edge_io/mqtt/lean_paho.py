"""paho-mqtt's client, imported without what most connections do not need.

By itself it loads `ssl`, and for proxies the HTTP client of `urllib.request`, whatever is configured: 6 MB of a process
that has 30. Both are left out here unless something else has loaded them; `speak_tls` brings `ssl` when it is wanted.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

from edge_io.stand_in_imports import instead

_absent: dict[str, ModuleType | None] = {"ssl": None}
if importlib.util.find_spec("socks") is None:  # without PySocks it never looks for a proxy
    _absent["urllib.request"] = ModuleType("urllib.request")
with instead(_absent):
    import paho.mqtt.client as paho
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

__all__ = ["PacketTypes", "Properties", "paho", "speak_tls"]


class _NoTls:
    """The errors of TLS, which paho-mqtt looks for on every connection: they never come on one without it."""

    class SSLWantReadError(Exception):
        pass

    class SSLWantWriteError(Exception):
        pass


if paho.ssl is None:  # type: ignore[attr-defined]
    paho.ssl = _NoTls


def speak_tls() -> None:
    """Let clients speak TLS, those that run already as well."""
    import ssl

    paho.ssl = ssl  # type: ignore[attr-defined]
