"""A bad link: a TCP proxy on loopback that is slow, far away, and hangs up. It never reorders: TCP does not.

with FaultProxy(broker.port, rate=20_000, delay_s=0.3) as link: ...      link.port, link.received
with FaultProxy(broker.port, cut_every_s=1.5) as link: ...               link.cuts
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

PIECE_BYTES = 2048


class FaultProxy:
    """See the module. `rate` is in bytes a second for each direction, `received` the bytes the client got."""

    def __init__(
        self, upstream: int, *, rate: float | None = None, delay_s: float = 0.0, cut_every_s: float | None = None
    ) -> None:
        self.port = 0
        self.received = 0
        self.cuts = 0
        self._upstream = upstream
        self._rate = rate
        self._delay_s = delay_s
        self._cut_every_s = cut_every_s
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._connection(reader, writer)
            writer.transport.abort()
            connections.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, count=False)),
            asyncio.create_task(self._pump(far_reader, writer, count=True)),
        ]
        try:
            await asyncio.wait(pumps, timeout=self._cut_every_s, return_when=asyncio.FIRST_COMPLETED)
            self.cuts += not any(pump.done() for pump in pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        """Read at the link's rate; every piece arrives `delay_s` later, in order."""
        loop = asyncio.get_running_loop()
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, piece = await line.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(piece)
                await writer.drain()
                self.received += len(piece) if count else 0

        delivery = asyncio.create_task(deliver())
        try:
            while piece := await reader.read(PIECE_BYTES):
                if self._rate is not None:
                    await asyncio.sleep(len(piece) / self._rate)
                line.put_nowait((loop.time() + self._delay_s, piece))
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)
