"""Every server behind a lock, and its visitors: the adapters of brokers, and the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from brokers import open_broker
from brokers.base import Broker
from brokers.conformance.harness import bodies, fresh, take
from core.endpoints import Access, Endpoint, Sasl
from core.errors import BrokerError, StoreError
from core.settings import Durability, Keeping
from stack import parts
from stack.kafka import kafka
from stack.locks import OPEN, Locks, make_certificate, make_locks
from stack.parts import Part
from stack.rabbit import rabbit
from store import open_store
from tests.conformance.server import StackServer
from tests.servers import needs

NAMES = "IP:127.0.0.1"
"""What the certificates are made for: not for localhost."""

Trouble = Callable[[], Awaitable[str]]
"""Use the server once; what is wrong, or nothing."""

GONE_S = 0.2


@dataclass(frozen=True, slots=True)
class Kind:
    """`slow` servers take seconds to start again: what needs that is left to --whole."""

    name: str
    programs: tuple[str, ...]
    make_part: Callable[..., Part]
    visit: Callable[[Endpoint], AbstractAsyncContextManager[Trouble]]
    setting: str = "BROKER"
    slow: bool = False


class LockedServer(StackServer):
    """Behind TLS and a password, until told otherwise."""

    def __init__(self, kind: Kind) -> None:
        needs(*kind.programs, "openssl")
        self.kind = kind
        self.locks: Locks
        super().__init__(self._make)

    def _make(self, directory: Path) -> Part:
        self.locks = make_locks(directory / "locks")
        make_certificate(self.locks, names=NAMES)
        return self.kind.make_part(directory, name="locked", locks=self.locks)

    @property
    def port(self) -> int:
        return self._part.port

    def restart(self, *, locked: bool = True) -> None:
        """With the files of its locks as they are now, or without locks."""
        self.kill()
        locks = self.locks if locked else OPEN
        self._part = self.kind.make_part(self.directory, name="locked", locks=locks, port=self._running.port)
        self._running.part = self._part
        self.start()

    def endpoint(self, url: str = "", **access: Any) -> Endpoint:
        """As clients are to come in, but for `url` and what `access` says otherwise."""
        right = Access(
            self.kind.setting,
            user=self.locks.user,
            password_file=str(self.locks.password_file),
            ca_file=str(self.locks.authority),
        )
        return Endpoint.of(url or self.url, replace(right, **access))


@asynccontextmanager
async def _at_broker(endpoint: Endpoint, durability: Durability = "confirmed") -> AsyncIterator[Trouble]:
    broker = open_broker(endpoint, name="test", durability=durability)
    await broker.start()
    try:
        yield partial(_message, broker)
    finally:
        await broker.close()


async def _message(broker: Broker) -> str:
    topic = fresh()
    try:
        await broker.ensure(topic, ["readers"])
        reader = await broker.subscribe(topic, "readers")
        await broker.publish(topic, b"through the door", 5.0)
        messages = await take(reader, 1)
        await reader.acknowledge(messages)
        await reader.close()
    except BrokerError as exc:
        return str(exc)
    return "" if bodies(messages) == [b"through the door"] else "it did not arrive"


@asynccontextmanager
async def _at_store(endpoint: Endpoint) -> AsyncIterator[Trouble]:
    store = open_store(endpoint, Keeping())

    async def check() -> str:
        try:
            await store.check()
        except StoreError as exc:
            return str(exc)
        return ""

    try:
        yield check
    finally:
        await store.close()
        # A connection that was refused is closed without waiting, and TLS ends with an exchange: to close an event loop
        # of uvloop's in its midst fails.
        await asyncio.sleep(GONE_S)


NATS = Kind("nats", ("nats-server",), parts.nats, _at_broker)
NATS_CORE = Kind("nats+core", ("nats-server",), parts.nats_core, partial(_at_broker, durability="relaxed"))
REDIS = Kind("redis", ("redis-server",), parts.redis_streams, _at_broker)
STORE = Kind("store", ("redis-server",), parts.redis, _at_store, "STORE")
RABBIT = Kind("rabbit", ("rabbitmq-server",), rabbit, _at_broker, slow=True)
KAFKA = Kind("kafka", ("java", "kafka"), kafka, _at_broker, slow=True)

KINDS = [NATS, NATS_CORE, REDIS, STORE, RABBIT, KAFKA]
MECHANISMS: list[Sasl] = ["plain", "scram-sha-256", "scram-sha-512"]
