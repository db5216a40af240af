"""One channel of a connection to RabbitMQ: requests, their answers, and messages as they arrive. The connection is in
`brokers.rabbit_link`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from pamqp import commands
from pamqp.base import Frame

from brokers import rabbit_wire as wire
from core.errors import BrokerError, BrokerUnavailable

NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 406

_ANSWER_TIMEOUT_S = 5.0
_REFUSALS = {403, NOT_FOUND, 405, PRECONDITION_FAILED}
"""403 is access refused, 405 locked: asking again does not help. Any other code may pass."""


class Line(Protocol):
    """What a channel needs of its connection."""

    @property
    def up(self) -> bool: ...

    @property
    def max_frame_bytes(self) -> int: ...

    def write(self, data: bytes) -> None: ...

    def join(self, channel: Channel) -> int: ...

    def leave(self, channel: Channel) -> None: ...

    async def room(self) -> None: ...


@dataclass(slots=True)
class _Call:
    """Requests whose answers are waited for together."""

    wanted: int
    done: asyncio.Future[list[Frame]]
    answers: list[Frame] = field(default_factory=list)


class Channel:
    """One channel of a link: requests and their answers. What carries messages is built on it."""

    def __init__(self, link: Line, number: int | None = None) -> None:
        self._link = link
        self.number = link.join(self) if number is None else number
        self.error: BrokerError | None = None
        """Why it is closed."""
        self._calls: deque[_Call] = deque()
        self._method = b""
        self._pieces: list[bytes] = []
        self._missing_bytes = 0

    def send(self, *frames: Frame) -> None:
        """An answer that nobody waits for is dropped."""
        self._link.write(b"".join(wire.encode(self.number, each) for each in frames))

    async def call(self, *frames: Frame) -> list[Frame]:
        """Send requests at once and return their answers. Raises BrokerError when the server refuses one and so closes
        the channel, BrokerUnavailable when it does not answer."""
        return await self.hear(len(frames), b"".join(wire.encode(self.number, each) for each in frames))

    async def hear(self, answers: int, question: bytes) -> list[Frame]:
        if self.error is not None:
            raise BrokerUnavailable(str(self.error))
        call = _Call(answers, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self._link.write(question)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await call.done
        except TimeoutError as exc:
            raise BrokerUnavailable(f"no answer within {_ANSWER_TIMEOUT_S} s") from exc

    def close(self) -> None:
        self.send(commands.Channel.Close(reply_code=200, reply_text="done", class_id=0, method_id=0))

    def fail(self, error: BrokerError) -> None:
        """End everything that waits for this channel."""
        self.error = self.error or error
        for call in self._calls:
            if not call.done.done():
                call.done.set_exception(error)
        self._calls.clear()

    def receive(self, kind: int, payload: bytes) -> None:
        """One frame from the server."""
        if kind == wire.METHOD:
            self._method = payload
            self.on_method(payload[:4], payload)
        elif kind == wire.HEADER:
            self._missing_bytes = wire.body_size(payload)
            self._pieces.clear()
            if not self._missing_bytes:
                self.on_content(self._method, b"")
        elif kind == wire.BODY:
            self._pieces.append(payload)
            self._missing_bytes -= len(payload)
            if not self._missing_bytes:
                self.on_content(self._method, b"".join(self._pieces))
                self._pieces.clear()

    def on_method(self, name: bytes, payload: bytes) -> None:
        if name == wire.CHANNEL_CLOSE:
            close = cast(commands.Channel.Close, wire.decode(self.number, payload))
            self.send(commands.Channel.CloseOk())
            self._link.leave(self)
            self.on_close(close.reply_code or 0, close.reply_text)
        elif name == wire.CHANNEL_CLOSE_OK:
            self._link.leave(self)
        elif self._calls:
            self._answer(wire.decode(self.number, payload))

    def on_content(self, method: bytes, body: bytes) -> None:
        """A message has arrived whole."""

    def on_block(self, reason: str) -> None:
        """The server reads nothing more from this connection for now."""

    def on_close(self, code: int, text: str) -> None:
        """The server has closed this channel."""
        self.fail(refusal(code, text))

    def _answer(self, frame: Frame) -> None:
        call = self._calls[0]
        call.answers.append(frame)
        if len(call.answers) == call.wanted:
            self._calls.popleft()
            if not call.done.done():
                call.done.set_result(call.answers)


async def ask(link: Line, requests: Sequence[Frame]) -> list[Frame]:
    """The answers, on a channel of its own, because the server closes it when it refuses. Raises as `Channel.call`."""
    channel = Channel(link)
    try:
        _, *answers = await channel.call(commands.Channel.Open(), *requests)
        return answers
    finally:
        if channel.error is None:
            channel.close()


def refusal(code: int, text: str) -> BrokerError:
    """The error for a channel that the server closed."""
    if code in _REFUSALS and "inaccessible" not in text:  # a queue whose node is down is not found either
        return BrokerError(text)
    return BrokerUnavailable(text)
