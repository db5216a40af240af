"""Lines: connections that carry one request at a time, with no task, future or timer for a request.

A line tells its owner of the end of each exchange and is free again at once. What comes back is parsed once for each
different answer: a server says the same thing many thousand times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

from bench.client import CONTENT_LENGTH, Address
from bench.load import Request

REFUSED: Final = 0
"""Instead of a status: no connection could be opened, the request did not leave."""
BROKEN: Final = 1
"""The connection ended, or said something that is not plain HTTP/1.1, after the request had left."""
SILENT: Final = 2
"""No answer in time."""

_KNOWN_ANSWERS = 4096
_KNOWN_BYTES = 1024
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of an answer says: `length` is that of the head and its body together, `keeps` is false where the
    connection ends after it."""

    status: int
    length: int
    keeps: bool


class NotPlain(ValueError):
    """An answer that is not HTTP/1.1 with a length."""


def read_head(received: bytes) -> Head | None:
    """The head at the start of `received`, or None while it is not whole; raises NotPlain."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = received[:end].lower()
    if not head.startswith(b"http/1.") or b"\r\ntransfer-encoding:" in head or not head[9:12].isdigit():
        raise NotPlain(received[:end])
    status = int(head[9:12])
    length = CONTENT_LENGTH.search(head)
    if length is None and status not in _BODILESS:
        raise NotPlain(received[:end])
    body_bytes = int(length[1]) if length and status not in _BODILESS else 0
    keeps = b"\r\nconnection: close" not in head and not head.startswith(b"http/1.0")
    return Head(status, end + 4 + body_bytes, keeps)


class Line:
    """One kept connection to `address`, opened anew when it was closed. `request` is what it carries, `due` the time
    from which its latency counts, `sent_at` when it was handed over. `ended` is told of the line and of a status, or
    REFUSED, BROKEN or SILENT; it may send the next request at once."""

    def __init__(self, address: Address, ended: Callable[[Line, int], None]) -> None:
        self.address = address
        self.ended = ended
        self.busy = False
        self.request: Request | None = None
        self.due = 0.0
        self.sent_at = 0.0
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[None] | None = None

    def send(self, request: Request, due: float, now: float) -> None:
        """Carry `request`; only while not busy."""
        self.busy = True
        self.request, self.due, self.sent_at = request, due, now
        wire = self._wire
        if wire is not None:
            wire.transport.write(request.wire)
        else:
            work = self._connect_and_send(request)
            self._connecting = asyncio.get_running_loop().create_task(work, name=f"connect to {self.address}")

    async def open(self) -> None:
        """Connect; raises OSError. Before the first request, so that its latency is not that of connecting."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Wire(self), self.address.host, self.address.port)

    def give_up(self) -> None:
        """The answer is overdue."""
        self._fail(SILENT if self._connecting is None else REFUSED)

    def close(self) -> None:
        self._drop()

    def opened(self, wire: _Wire) -> None:
        """For the wire: it is connected."""
        self._wire = wire

    def answered(self, status: int, keeps: bool) -> None:
        """For the wire: a whole answer is there."""
        if not self.busy:
            self._drop()
            return
        if not keeps:
            self._drop()
        self.busy = False
        self.ended(self, status)

    def lost(self, wire: _Wire) -> None:
        """For the wire: no answer will come any more."""
        if wire is self._wire:
            self._fail(BROKEN)

    def _fail(self, outcome: int) -> None:
        self._drop()
        if self.busy:
            self.busy = False
            self.ended(self, outcome)

    async def _connect_and_send(self, request: Request) -> None:
        try:
            await self.open()
        except OSError:
            self._connecting = None
            self._fail(REFUSED)
            return
        self._connecting = None
        if self._wire is not None:
            self._wire.transport.write(request.wire)

    def _drop(self) -> None:
        """Leave this connection; what it still says is heard no more."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.leave()


class _Wire(asyncio.Protocol):
    """One TCP connection of a line, until it ends."""

    _known: Final[dict[bytes, Head]] = {}
    """Whole answers that were met before, on any wire."""

    def __init__(self, line: Line) -> None:
        self.transport: asyncio.Transport
        self._line: Line | None = line
        self._received = b""

    def leave(self) -> None:
        self._line = None
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._line is not None:
            self._line.opened(self)

    def data_received(self, data: bytes) -> None:
        line = self._line
        if line is None:
            return
        if self._received:
            data = self._received + data
        head = self._known.get(data)
        if head is None:
            try:
                head = self._read(data)
            except NotPlain:
                line.lost(self)
                return
        if head is None:
            self._received = data
            return
        self._received = b""
        line.answered(head.status, head.keeps)

    def connection_lost(self, exc: Exception | None) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.lost(self)

    def _read(self, data: bytes) -> Head | None:
        """The head of an answer that is whole, or None. Whoever says more than one answer is not to be trusted with
        the next."""
        head = read_head(data)
        if head is None or len(data) < head.length:
            return None
        if len(data) > head.length:
            head = Head(head.status, head.length, keeps=False)
        if len(data) <= _KNOWN_BYTES:
            if len(self._known) >= _KNOWN_ANSWERS:
                self._known.clear()
            self._known[data] = head
        return head
