"""Addresses as they stand in a URL."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from edge_io.addresses import address_text


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("box.local", "box.local:80"),
        ("::1", "[::1]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:80"),
    ],
)
def test_an_address_can_be_put_into_a_url_and_read_back(host: str, text: str) -> None:
    assert address_text(host, 80) == text
    assert urlsplit(f"http://{text}/v2").port == 80
    assert urlsplit(f"http://{text}/v2").hostname == host
