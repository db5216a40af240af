"""A TCP proxy that cuts connections in the middle of what they carry."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from stack.ports import HOST, free_port

_CHUNK_BYTES: Final = 64 * 1024
_SHORTEST: Final = 1.0
_LONGEST: Final = 5.5
"""A connection to be cut carries 10 ** x bytes first, x between these: some end within their first greeting, others
after a thousand messages."""


class Proxy:
    """Forwards what comes in on `port` to `target_port`. From `cut` on, until `mend`, each connection, those that
    stand and those that come, ends after a random number of bytes, whichever way they went; what is left of the last
    frame stays away."""

    def __init__(self, target_port: int, *, port: int | None = None, seed: int = 0) -> None:
        self.port = port or free_port()
        self.cuts = 0
        self._target_port = target_port
        self._chance = random.Random(seed)
        self._cutting = False
        self._pairs: set[_Pair] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for pair in list(self._pairs):
            pair.abort()
        await self._server.wait_closed()

    def cut(self) -> None:
        self._cutting = True
        for pair in self._pairs:
            pair.left_bytes = self._draw()

    def mend(self) -> None:
        self._cutting = False
        for pair in self._pairs:
            pair.left_bytes = None

    def _draw(self) -> int:
        return int(10 ** self._chance.uniform(_SHORTEST, _LONGEST))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer, self._draw() if self._cutting else None)
        self._pairs.add(pair)
        try:
            await asyncio.wait(
                {
                    asyncio.create_task(pair.forward(reader, far_writer), name="proxy-in"),
                    asyncio.create_task(pair.forward(far_reader, writer), name="proxy-out"),
                }
            )
        finally:
            self._pairs.discard(pair)
            self.cuts += pair.was_cut
            pair.abort()


class _Pair:
    """The two connections that one client's bytes go over."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter, left_bytes: int | None) -> None:
        self.left_bytes = left_bytes
        """What it may still carry, if it is to be cut."""
        self.was_cut = False
        self._near = near
        self._far = far

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                if self.left_bytes is not None and len(chunk) >= self.left_bytes:
                    writer.write(chunk[: self.left_bytes])
                    self.was_cut = True
                    break
                if self.left_bytes is not None:
                    self.left_bytes -= len(chunk)
                writer.write(chunk)
                await writer.drain()
        self.abort()

    def abort(self) -> None:
        self._near.transport.abort()
        self._far.transport.abort()
