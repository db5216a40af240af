"""What the suite needs of each kind of broker, and the waiting that its tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol
from uuid import uuid4

from brokers.base import Broker, Features, Message, Subscription
from brokers.memory import MemoryBroker
from brokers.nats import NatsBroker
from core.errors import BrokerError, BrokerUnavailable
from tests.conformance.server import NatsServer

SOON_S = 10.0
"""How long a test waits for what must happen."""
TOPIC_BYTES = 16 * 2**20


class Server(Protocol):
    """The server behind a broker."""

    url: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def lose_data(self) -> None: ...


class Harness:
    """Makes brokers of one kind and closes them. For one with a server, all of them share it."""

    def __init__(self, kind: str, server: Server | None) -> None:
        self.kind = kind
        self._server = server
        self._brokers: list[Broker] = []

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    @property
    def features(self) -> Features:
        return self._make(30.0, TOPIC_BYTES).features

    def make(self, *, redeliver_after_s: float = 30.0, max_topic_bytes: int = TOPIC_BYTES) -> Broker:
        """A broker that is not started."""
        broker = self._make(redeliver_after_s, max_topic_bytes)
        self._brokers.append(broker)
        return broker

    async def broker(self, *, redeliver_after_s: float = 30.0, max_topic_bytes: int = TOPIC_BYTES) -> Broker:
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
        if self.kind == "memory":
            return MemoryBroker(redeliver_after_s=redeliver_after_s, max_bytes=max_topic_bytes)
        return NatsBroker(
            self.server.url, name="conformance", redeliver_after_s=redeliver_after_s, max_topic_bytes=max_topic_bytes
        )


def nats(server: NatsServer) -> Harness:
    return Harness("nats", server)


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
