"""What `test_transports.py` and `test_transports_processes.py` share."""

from __future__ import annotations

BLOB = "ab" * 32
DATA = bytes(range(256)) * 40
