"""One counting process: the consumer, and its health on an address of its own."""

from __future__ import annotations

import asyncio

from brokers.base import Broker
from core.health import Checks, health_routes, store_check
from core.http import HttpService, Routes
from core.settings import Keeping
from core.store import Store
from core.telemetry import Exposition
from process.consumer import Consumer


def oldest_allowed_s(keeping: Keeping) -> float:
    """Half of what is still remembered when a message is read this late."""
    return min(keeping.horizon_s, keeping.idempotency_s) / 2


class ProcessService:
    """A lifecycle service over a broker and a store, which it starts but leaves to its owner to close."""

    def __init__(
        self, broker: Broker, store: Store, keeping: Keeping, *, topic: str, host: str, health_port: int
    ) -> None:
        self._store = store
        self._consumer = Consumer(broker, store, topic=topic, oldest_allowed_s=oldest_allowed_s(keeping))
        routes = health_routes(self._consumer.alive, self._ready, Exposition(self._consumer.metrics))
        self._http = HttpService(host, health_port, Routes(exact=routes, under={}), port_setting="HEALTH_PORT")

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._consumer.failed

    async def start(self) -> None:
        await self._http.start()
        await self._consumer.start()

    async def drain(self, timeout_s: float) -> None:
        await self._consumer.drain(timeout_s)

    async def close(self) -> None:
        await self._consumer.close()
        await self._http.close()

    async def _ready(self) -> Checks:
        return {"consumer": self._consumer.check(), "store": await store_check(self._store, vital=True)}
