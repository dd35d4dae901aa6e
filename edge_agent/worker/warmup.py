"""Warm-up: a new worker sends itself requests before it takes over from another one.

What runs for the first time runs slowly: code that is not specialized yet, empty caches, an answer whose time is not
known. All clients come over at once, and each of them would wait for that. So requests like the model's golden sample
go through a connection of the worker's own, in JSON and in binary, and are then forgotten: no counter knows of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any, Final

import msgspec

from edge_agent.http.oip_codec import DATATYPES
from edge_agent.http.server import HttpServer
from edge_agent.inference.runtime import Runtime
from edge_agent.ports import Array
from edge_contracts.limits import KIB

TIMES: Final = 16
"""Requests of each form: CPython 3.11 specializes code that has run eight times."""

MOST_S: Final = 0.1
"""Seconds after which a warm-up has taken long enough. A model that needs half of it for one answer has none: beside
its time the rest does not show."""

MOST_BYTES: Final = 64 * KIB
"""Of tensors in a request; beside larger ones the rest does not show either."""

_NAMES: Final = {dtype: datatype for datatype, dtype in DATATYPES.items()}


async def warm_up(server: HttpServer, runtime: Runtime) -> None:
    """Answer some requests on a connection within this process, and forget them."""
    tensors = runtime.usual(MOST_S / 2)
    if not 0 < sum(array.nbytes for array in tensors.values()) <= MOST_BYTES:
        return
    ours, theirs = socket.socketpair()
    await server.adopt(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # an answer that fails closes; clients will see it
        await _ask(reader, writer, _requests(runtime.manifest.name, tensors))
    writer.close()
    while server.connections:
        await asyncio.sleep(0)
    runtime.forget()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[bytes]) -> None:
    end = time.monotonic() + MOST_S
    for request in requests:
        for _ in range(TIMES):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            if time.monotonic() > end:
                return


def _requests(model: str, tensors: dict[str, Array]) -> list[bytes]:
    """Return a request in JSON and one in binary; only the latter where a dtype has no form in JSON."""
    inputs: list[dict[str, Any]] = [
        {"name": name, "datatype": _NAMES[array.dtype.name], "shape": list(array.shape)}
        for name, array in tensors.items()
    ]
    sizes = [{"parameters": {"binary_data_size": array.nbytes}} for array in tensors.values()]
    binary = msgspec.json.encode(
        {
            "inputs": [one | size for one, size in zip(inputs, sizes, strict=True)],
            "parameters": {"binary_data_output": True},
        }
    )
    blobs = b"".join(array.tobytes() for array in tensors.values())
    found = [_post(model, binary + blobs, b"inference-header-content-length: %d\r\n" % len(binary))]
    if all(array.dtype.name != "float16" for array in tensors.values()):
        data = [{"data": array.ravel().tolist()} for array in tensors.values()]
        text = msgspec.json.encode({"inputs": [one | more for one, more in zip(inputs, data, strict=True)]})
        found.insert(0, _post(model, text))
    return found


def _post(model: str, body: bytes, header: bytes = b"") -> bytes:
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: warm-up\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + header + b"\r\n" + body
