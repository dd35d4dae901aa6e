"""TLS for a broker: the context from files, and what the broker says when it refuses our certificate."""

from __future__ import annotations

import socket
import ssl


def client_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """Return the context for one connection, its files read now. Raises OSError, ssl.SSLError, ValueError."""
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def tls_refusal(address: tuple[str, int], context: ssl.SSLContext, timeout_s: float) -> str:
    """Return why the broker refuses our certificate, or "" if it does not say within `timeout_s` seconds.

    In TLS 1.3 the refusal comes after our side of the handshake is done. Whoever has sent more by then may find the
    connection reset and the alert lost (RFC 8446, section 4.4.2, with RFC 1122, section 4.2.2.13); so nothing is sent.
    """
    try:
        with (
            socket.create_connection(address, timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=address[0]) as listening,
        ):
            listening.recv(1)
    except ssl.SSLError as error:
        return str(error) if "ALERT" in str(error) else ""
    except OSError:
        return ""
    return ""
