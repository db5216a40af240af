"""A member of a consumer group on Redis Streams: reads through a connection of its own, for reads that wait block one.

Redis returns nothing by itself. What a member leaves behind it gives to the consumer `returned`, from which the others
take first; what a dead one held they find by its age.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

from brokers.base import Message
from brokers.redis_link import CLOSE_TIMEOUT_S, Link, Script, checked
from core.errors import BrokerError, BrokerUnavailable

_LOOK_S = 0.25
"""Between two looks at what other members left, and the longest that one read waits: it wakes for new messages only."""
_WAITING_READ = 16
"""Most messages of a read that waits; more may have come just before it, of any size."""
_FORGET_AFTER_MS = 60_000
"""A member that is silent for so long and holds nothing was killed."""
_ANSWER_TIMEOUT_S = 5.0

_TAKE = Script("take")
_LEAVE = Script("leave")
_EXTEND = Script("extend")
MEMBER_SCRIPTS: Final = (_TAKE, _LEAVE, _EXTEND)


class RedisSubscription:
    """One member of a group.

    One read is under way at a time. What a cancelled fetch asked for is received by the next one.
    """

    def __init__(
        self,
        keys: tuple[str, str],
        group: str,
        *,
        check_connected: Callable[[], object],
        connect: Callable[[], Awaitable[Link]],
        on_close: Callable[[RedisSubscription], None],
        redeliver_after_s: float,
    ) -> None:
        self._keys = keys
        self._stream = keys[0]
        self._group = group
        self._name = uuid4().hex
        self._check_connected = check_connected
        self._connect = connect
        self._on_close = on_close
        self._redeliver_after_ms = max(1, round(redeliver_after_s * 1000))
        self._look_s = min(_LOOK_S, redeliver_after_s / 2)
        self._link: Link | None = None
        self._read: asyncio.Future[Any] | None = None
        self._receive = self._receive_taken
        """What the read under way is answered with goes to it."""
        self._buffer: deque[Message] = deque()
        self._look_at = 0.0
        self._cursor = b"0-0"
        self._closed = False
        self._leaving = asyncio.Lock()

    async def attach(self) -> Link:
        """The present connection of its own, or a new one; what was delivered on an earlier one is given back.

        That takes the time it takes: a fetch that cut it off at its own deadline would begin it again for ever. Raises
        BrokerUnavailable, also if the group is not there.
        """
        self._check_open()
        self._check_connected()
        if self._link is not None and self._link.up:
            return self._link
        link = await self._connect()
        try:
            await self._leave(link, _ANSWER_TIMEOUT_S)
            self._check_open()
        except TimeoutError as exc:
            link.abort()
            raise BrokerUnavailable(f"no answer within {_ANSWER_TIMEOUT_S} s") from exc
        except BaseException:
            link.abort()
            raise
        self._buffer.clear()
        self._read = None
        self._link = link
        return link

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        waits = False
        try:
            link = await self.attach()
            while not self._buffer:
                if self._read is None:
                    wait_s = min(deadline - clock(), self._look_s) if waits else 0.0
                    self._read = self._ask(link, max_messages, max_bytes, wait_s)
                    waits = not waits
                await asyncio.wait({self._read}, timeout=deadline - clock())
                self._check_open()
                if not self._read.done():
                    return []
                read, self._read = self._read, None
                self._receive(link, checked(read.result()))
                if clock() >= deadline:
                    break
        except BrokerError as exc:
            raise BrokerUnavailable(str(exc)) from exc
        return self._take(max_messages, max_bytes)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        self._check_open()
        self._check_connected()
        if self._link is not None and self._link.up and (ids := self._present(messages)):
            self._link.tell("XACK", self._stream, self._group, *ids)

    async def extend(self, messages: Sequence[Message]) -> None:
        self._check_open()
        self._check_connected()
        if self._link is not None and self._link.up and (ids := self._present(messages)):
            self._link.tell(*_EXTEND.call((self._stream,), self._group, self._name, *ids))

    async def close(self) -> None:
        """The connection that reads is the one to leave by: nothing is delivered on it behind that."""
        self._closed = True
        async with self._leaving:
            link, self._link = self._link, None
            if link is not None:
                link.fail("closed")
                with suppress(BrokerError, TimeoutError):
                    await self._leave(link, CLOSE_TIMEOUT_S)
                link.abort()
            self._on_close(self)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")

    async def _leave(self, link: Link, timeout_s: float) -> None:
        await link.call(_LEAVE.call(self._keys, self._group, self._name, _FORGET_AFTER_MS), timeout_s)

    def _ask(self, link: Link, max_messages: int, max_bytes: int, wait_s: float) -> asyncio.Future[Any]:
        """Begin to read: what is there or, with `wait_s`, what comes next."""
        if wait_s > 0:
            self._receive = self._receive_new
            bounds = ("COUNT", min(max_messages, _WAITING_READ), "BLOCK", max(1, int(wait_s * 1000)))
            return link.ask("XREADGROUP", "GROUP", self._group, self._name, *bounds, "STREAMS", self._stream, ">")
        self._receive = self._receive_taken
        return link.ask(*_TAKE.call(self._keys, self._group, self._name, max_messages, max_bytes, *self._look()))

    def _look(self) -> tuple[int | bytes, ...]:
        """The arguments of a look at what other members left, when it is time for one."""
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return ()
        self._look_at = now + self._look_s
        return self._redeliver_after_ms, self._cursor

    def _receive_taken(self, link: Link, reply: Any) -> None:
        """redis_take.lua tells the form."""
        parts = iter(reply)
        self._cursor = next(parts) or self._cursor
        self._buffer.extend(Message(body, (link, number)) for number, body in zip(parts, parts, strict=True))

    def _receive_new(self, link: Link, reply: Any) -> None:
        """Nothing, or of one stream the entries: id and fields, of which the second part is the body."""
        if reply is not None:
            self._buffer.extend(Message(fields[1], (link, number)) for number, fields in reply[0][1])

    def _take(self, max_messages: int, max_bytes: int) -> list[Message]:
        messages: list[Message] = []
        size_bytes = 0
        while self._buffer and len(messages) < max_messages and size_bytes < max_bytes:
            message = self._buffer.popleft()
            messages.append(message)
            size_bytes += len(message.body)
        return messages

    def _present(self, messages: Sequence[Message]) -> list[bytes]:
        """The ids of those that came on the present connection."""
        return [number for link, number in (message.receipt for message in messages) if link is self._link]
