"""A bad link: a TCP proxy on loopback that is slow, far away, and hangs up. It never reorders: TCP does not.

with FaultProxy(broker.port, rate=20_000, delay_s=0.3) as link: ...      link.port, link.received
with FaultProxy(broker.port, cut_every_s=1.5) as link: ...               link.cuts
"""

from __future__ import annotations

import asyncio
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

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._connection(reader, writer))
            task.add_done_callback(lambda _: writer.transport.abort())

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.sleep(0)  # all have begun: one that accepts and is cancelled before leaves its socket open
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # transports that were aborted close theirs
        server.close()  # now: one that accepts for a closed server would leave its socket open too

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            return  # the broker is down, and so is the link
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, count=False)),
            asyncio.create_task(self._pump(far_reader, writer, count=True)),
        ]
        try:
            await asyncio.wait(pumps, timeout=self._cut_every_s, return_when=asyncio.FIRST_COMPLETED)
            self.cuts += not any(pump.done() for pump in pumps)
        finally:
            far_writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

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
