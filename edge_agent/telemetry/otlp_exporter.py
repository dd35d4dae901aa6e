"""Telemetry windows to an OpenTelemetry collector over HTTP, beside what goes to the fleet. Off unless configured.

Nothing is kept on disk: the fleet's spool is the durable copy. What a window says as metrics is in
`edge_agent.telemetry.otlp_encoding`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import msgspec

from edge_agent.telemetry.otlp_encoding import metrics_request
from edge_contracts.telemetry import TelemetryWindow

WAITING = 60
"""Windows that wait for a collector that is away; then the oldest go."""

TIMEOUT_S = 3.0

TRY_AGAIN = frozenset({429, 502, 503, 504})
"""What the protocol lets a client send again ("Retryable Response Codes"); another refusal is final."""

_log = logging.getLogger(__name__)


class OtlpExporter:
    """Used on the supervisor's event loop. Without a URL it does nothing."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._waiting: deque[TelemetryWindow] = deque(maxlen=WAITING)
        self._sending: asyncio.Task[None] | None = None

    def put(self, window: TelemetryWindow, url: str | None) -> None:
        """Send a window, and those that wait, to the collector at `url`."""
        if url is None:
            return
        self._waiting.append(window)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(url))

    async def stop(self) -> None:
        """Let what is being sent arrive."""
        if self._sending is not None:
            await self._sending

    async def _send(self, url: str) -> None:
        windows = list(self._waiting)
        body = msgspec.json.encode(metrics_request(windows, service="edgewright-agent", version=self._version))
        try:
            status = await asyncio.to_thread(_post, url, body)
        except (OSError, ValueError) as error:
            _log.warning("OpenTelemetry collector unreachable: %s", error)
            return
        if status >= 400:
            _log.warning("OpenTelemetry collector returned HTTP status %d", status)
        if status not in TRY_AGAIN:
            for window in windows:
                if self._waiting and self._waiting[0] is window:
                    self._waiting.popleft()


def _post(url: str, body: bytes) -> int:
    """Return the status of the answer. Raises OSError, ValueError."""
    import urllib.error  # a supervisor without a collector need not hold them
    import urllib.request

    fields = {"Content-Type": "application/json"}
    place = f"{url.rstrip('/')}/v1/metrics"  # http or https: the configuration is checked for it
    request = urllib.request.Request(place, data=body, headers=fields, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
