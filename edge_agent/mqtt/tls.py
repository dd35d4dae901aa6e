"""How the device speaks TLS to its broker: which files, and what its clock may say about them."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_agent.config.agent_toml import BrokerConfig
from edge_agent.errors import ConfigError
from edge_agent.identity.files import IdentityFiles, IdentityFolder
from edge_agent.storage.durable import StateError
from edge_io.mqtt.tls import client_context

X509_V_FLAG_NO_CHECK_TIME = 0x200000
"""OpenSSL's flag to leave the terms of certificates alone; Python's `ssl` has no name for it."""


def tls_context(settings: BrokerConfig, clock: float) -> ssl.SSLContext:
    """Return the context for one connection: the configured files, else the enrolled identity's, read again each time.

    `clock` is the device's, in seconds since 1970. One that is behind the beginning of the very authority it trusts is
    wrong (a box without a battery starts in 1970) and must not shut the device out: then terms are not looked at, names
    and signatures are. Raises ConfigError naming what cannot be used.
    """
    own = None if settings.certificate_file is not None else enrolled_files(settings)
    ca, certificate, key = settings.ca_file, settings.certificate_file, settings.key_file
    if own is not None:
        ca, certificate, key = ca or str(own.ca), str(own.certificate), str(own.key)
    try:
        context = client_context(ca, certificate, key)
    except (OSError, ssl.SSLError, ValueError) as error:
        files = ", ".join(str(path) for path in (ca, certificate, key) if path is not None)
        raise ConfigError(f"TLS files cannot be used: {error} ({files})", subject="config.broker") from error
    if ca is not None and clock < _youngest(context):
        context.verify_flags |= X509_V_FLAG_NO_CHECK_TIME
    return context


def enrolled_files(settings: BrokerConfig) -> IdentityFiles | None:
    """Return the files of the enrolled identity, if there is one. Raises ConfigError for one that cannot be read."""
    if settings.identity is None:
        return None
    folder = IdentityFolder(Path(settings.identity))
    try:
        enrolled = folder.current()
    except StateError as error:
        raise ConfigError(str(error), subject="config.broker.identity") from error
    return None if enrolled is None else folder.files(enrolled)


def _youngest(context: ssl.SSLContext) -> float:
    """Return when the youngest of the trusted authorities began, in seconds since 1970."""
    begins = (str(authority.get("notBefore", "")) for authority in context.get_ca_certs())
    return max((float(ssl.cert_time_to_seconds(begin)) for begin in begins if begin), default=0.0)
