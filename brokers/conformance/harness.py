"""What the suite needs of each kind of broker, and the waiting that its cases share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from brokers.base import Broker, Features, Message, Subscription
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerUnavailable

SOON_S = 10.0
"""How long a case waits for what must happen."""
TOPIC_BYTES = 16 * 2**20
REDELIVER_AFTER_S = 30.0


class Server(Protocol):
    """The server behind a broker. Keeps its address, and its data unless told to lose them."""

    @property
    def url(self) -> str: ...

    def start(self) -> None:
        """Return when it is ready. May be called again after `kill`."""

    def kill(self) -> None:
        """kill -9; nothing if it is not running."""

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""

    def thaw(self) -> None: ...

    def lose_data(self) -> None:
        """To be called while it is down."""

    def close(self) -> None:
        """Kill it and release everything."""


class MakeBroker(Protocol):
    """Makes an adapter that is not started. `redeliver_after_s` is how long a member may be silent about a message,
    `max_topic_bytes` what a topic that it ensures may hold, where the broker can be told so."""

    def __call__(self, endpoint: Endpoint, *, name: str, redeliver_after_s: float, max_topic_bytes: int) -> Broker: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of broker: how its adapter is made and, if `Features.server`, how its server is.

    `make_server` is given True for a server that its test may kill and False for one that all tests share.
    """

    name: str
    make_broker: MakeBroker
    make_server: Callable[[bool], Server] | None = None


class Harness:
    """Makes brokers of one kind and closes them. For one with a server, all of them share it."""

    def __init__(self, kind: Kind, server: Server | None) -> None:
        self.kind = kind
        self._server = server
        self._brokers: list[Broker] = []

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    @property
    def features(self) -> Features:
        return self._make(REDELIVER_AFTER_S, TOPIC_BYTES).features

    def make(self, *, redeliver_after_s: float = REDELIVER_AFTER_S, max_topic_bytes: int = TOPIC_BYTES) -> Broker:
        """A broker that is not started."""
        broker = self._make(redeliver_after_s, max_topic_bytes)
        self._brokers.append(broker)
        return broker

    async def broker(
        self, *, redeliver_after_s: float = REDELIVER_AFTER_S, max_topic_bytes: int = TOPIC_BYTES
    ) -> Broker:
        """A broker that is connected."""
        broker = self.make(redeliver_after_s=redeliver_after_s, max_topic_bytes=max_topic_bytes)
        await broker.start()
        await until(lambda: broker.connected)
        return broker

    async def restart(self, broker: Broker) -> None:
        """Kill the server, start it again and wait until `broker` is back on it."""
        self.server.kill()
        await until(lambda: not broker.connected)
        self.server.start()
        await until(lambda: broker.connected)

    async def close(self) -> None:
        await asyncio.gather(*(broker.close() for broker in self._brokers))

    def _make(self, redeliver_after_s: float, max_topic_bytes: int) -> Broker:
        endpoint = Endpoint.of(self._server.url if self._server is not None else "memory://")
        return self.kind.make_broker(
            endpoint, name="conformance", redeliver_after_s=redeliver_after_s, max_topic_bytes=max_topic_bytes
        )


def fresh(prefix: str = "topic") -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid4().hex[:12]}"


async def until(condition: Callable[[], bool], timeout_s: float = SOON_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def persistently(call: Callable[[], Awaitable[None]], timeout_s: float = SOON_S) -> None:
    """Call until it does not raise a BrokerError."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await call()
            except BrokerError:
                await asyncio.sleep(0.02)


async def take(subscription: Subscription, wanted: int, timeout_s: float = SOON_S) -> list[Message]:
    """Fetch until `wanted` messages are there or the time is over; connections may come and go."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    messages: list[Message] = []
    while len(messages) < wanted and (left_s := deadline - loop.time()) > 0:
        try:
            messages += await subscription.fetch(wanted - len(messages), 2**24, left_s)
        except BrokerUnavailable:
            await asyncio.sleep(0.02)
    return messages


def bodies(messages: Iterable[Message]) -> list[bytes]:
    return sorted(message.body for message in messages)


def numbered(count: int) -> list[bytes]:
    return [b"%06d" % number for number in range(count)]
