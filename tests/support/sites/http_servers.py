"""Other people's HTTP servers as children, each behind the same small application: what they make of the same bytes."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

APP = """
import json

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    text = json.dumps([scope["method"], body.decode("latin-1")]).encode()
    fields = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": text})
"""

NGINX = """
daemon off; pid {folder}/pid; error_log /dev/null; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "[\\"$request_method\\"]"; }} }}
}}
"""


def commands(folder: Path, port: int) -> dict[str, list[str]]:
    """Return how each server that is installed here is started."""
    (folder / "echo_app.py").write_text(APP)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    uvicorn = [sys.executable, "-m", "uvicorn", "echo_app:app", "--app-dir", str(folder), "--port", str(port)]
    quiet = ["--log-level", "critical", "--no-access-log"]
    hypercorn = "from hypercorn.__main__ import main; main(['echo_app:app', '--bind', '127.0.0.1:%d'])" % port  # noqa: UP031
    found = {
        "uvicorn-h11": [*uvicorn, *quiet, "--http", "h11"],
        "uvicorn-httptools": [*uvicorn, *quiet, "--http", "httptools"],
        "hypercorn": [sys.executable, "-W", "ignore", "-c", hypercorn],
    }
    if (nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")) is not None:
        found["nginx"] = [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    return found


@contextlib.contextmanager
def running(name: str, folder: Path, port: int) -> Iterator[None]:
    """Run one of them until the context ends; it accepts connections from the start of the context on."""
    folder.mkdir()
    process = subprocess.Popen(
        commands(folder, port)[name], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
