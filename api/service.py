"""One replica of the API: HTTP in front, the publisher behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.publisher import Publisher
from api.routes import Api
from brokers.base import Broker
from core import counting
from core.health import Check, Checks, health_routes, store_check
from core.http import HttpService
from core.lifecycle import Deadline
from core.settings import Replica
from core.store import Store
from core.telemetry import Exposition, Source


class ApiService:
    """A lifecycle service over a broker and a store, which it starts but leaves to its owner to close. `metrics` are
    shown beside its own."""

    def __init__(
        self, broker: Broker, store: Store, settings: Replica, *, topic: str, metrics: Sequence[Source] = ()
    ) -> None:
        self._store = store
        self._publisher = Publisher(
            broker, store, settings, topic=topic, groups=[counting.GROUP], max_rates=settings.max_rates
        )
        health = health_routes(dict, self._ready, Exposition(self._publisher.metrics, *metrics))
        api = Api(self._publisher, store, settings)
        self._http = HttpService(settings.host, settings.port, api.routes(health), access_log=settings.access_log)
        self._draining = False

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._publisher.failed

    async def start(self) -> None:
        await self._store.start()
        await self._http.start()
        await self._publisher.start()

    async def drain(self, timeout_s: float) -> None:
        """Stop without a broken connection or a forgotten rate:

        1. /readyz turns red;
        2. the listener closes, open connections are told to, and requests under way are answered;
        3. lanes are flushed and their confirms awaited: also of rates whose requests were answered 503 already;
        4. a last lease tells the store what was confirmed.
        """
        self._draining = True
        deadline = Deadline(timeout_s)
        await self._http.drain(deadline.left_s)
        await self._publisher.drain(deadline.left_s)

    async def close(self) -> None:
        """The publisher first: what still waits is answered before its connection closes."""
        await self._publisher.close()
        await self._http.close()

    async def _ready(self) -> Checks:
        return {
            "publishing": Check(False, "stopping") if self._draining else self._publisher.check(),
            # Told, but not vital: rates are taken in and confirmed while the store is away, and counted later.
            "store": await store_check(self._store, vital=False),
        }
