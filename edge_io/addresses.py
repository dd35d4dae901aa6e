"""Addresses as people write them: HOST:PORT, an IPv6 host in brackets (RFC 3986, section 3.2.2)."""

from __future__ import annotations


def address_text(host: str, port: int) -> str:
    """Return an address as it stands in a URL: `[::1]:8000`, `box.local:8000`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
