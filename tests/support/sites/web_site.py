"""A web server of a folder on loopback, which notes what it was asked for and can be told to misbehave.

with WebSite(folder) as site: site.url, site.asked; site.answers["/x"] = lambda handler: ...; site.stop(); site.start()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Misbehavior = Callable[[BaseHTTPRequestHandler], None]


class WebSite:
    """See the module. `asked` has every path in order. After `stop` the port stays the same for `start`."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Misbehavior] = {}
        self._folder = folder
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        site = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                site._answer(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Answering)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> WebSite:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path in self.answers:
            self.answers[handler.path](handler)
            return
        file = self._folder / handler.path.lstrip("/")
        if file.is_file():
            give(handler, file.read_bytes())
        else:
            handler.send_error(404)


def give(handler: BaseHTTPRequestHandler, body: bytes, declared: int | None = None) -> None:
    """Answer with a body that is said to be `declared` bytes long, by default as long as it is."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if declared is None else declared))
    handler.end_headers()
    handler.wfile.write(body)


def giving(body: bytes, declared: int | None = None) -> Misbehavior:
    """Return an answer with that body."""
    return lambda handler: give(handler, body, declared)


def undeclared(body: bytes) -> Misbehavior:
    """Return an answer that does not say how long it is; its end is the connection's."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirecting(place: str) -> Misbehavior:
    """Return an answer that sends elsewhere."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def failing(status: int) -> Misbehavior:
    """Return an answer with an HTTP status."""
    return lambda handler: handler.send_error(status)


def ranged(body: bytes, breaks_after: int | None = None) -> Misbehavior:
    """Return an answer that knows Range, and says all but sends only `breaks_after` bytes of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:][:breaks_after])

    return answer


def busy(delay_s: int) -> Misbehavior:
    """Return an answer that asks to come back later."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(503)
        handler.send_header("Retry-After", str(delay_s))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer
