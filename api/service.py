"""One replica of the API: HTTP in front, the publisher behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from api.dispatch import chooser
from api.hot import hot_route
from api.inline import InlineBroker
from api.publisher import Publisher
from api.routes import Api
from brokers.base import Broker
from core import counting
from core.health import Check, Checks, health_routes, store_check
from core.http import HttpService, Routes
from core.lifecycle import Deadline, first_failure
from core.settings import Publishing, Replica
from core.store import Store
from core.telemetry import Exposition, Source

log = structlog.get_logger()


class ApiService:
    """A lifecycle service over a broker and a store, which it starts but leaves to its owner to close. `groups` are
    all that read, `metrics` are shown beside its own. Its port may be `shared` with other replicas; it alone tells how
    it is at `health_port`."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        settings: Replica,
        *,
        topic: str,
        groups: Sequence[str] = (counting.GROUP,),
        metrics: Sequence[Source] = (),
        shared: bool = False,
        health_port: int | None = None,
    ) -> None:
        self._store = store
        self._inline = broker if isinstance(broker, InlineBroker) else None
        self._may_lose = broker.features.at_most_once or (self._inline is not None and settings.durability == "relaxed")
        topics = settings.topic_names(topic)
        self._publisher = Publisher(
            broker,
            store,
            _publishing(settings),
            topic=topics,
            groups=groups,
            max_rates=settings.max_rates,
            choose=chooser(settings.topic_choice, len(topics)) if len(topics) > 1 else None,
            answers_at_once=self._inline is not None and settings.durability == "relaxed",
            publishes_at_once=_works_on_rates(settings),
        )
        self._failed = first_failure(self._publisher, *([self._inline] if self._inline else []))
        counted = [self._inline.metrics] if self._inline else []
        health = health_routes(
            dict, self._ready, Exposition(self._publisher.metrics, lambda: self._http.metrics(), *counted, *metrics)
        )
        api = Api(self._publisher, store, settings)
        self._http = HttpService(
            settings.host,
            settings.port,
            api.routes(health),
            access_log=settings.access_log,
            shared=shared,
            front=hot_route(self._publisher, settings.rate_range) if settings.hot_route else None,
        )
        self._health = (
            None
            if health_port is None
            else HttpService(
                settings.host, health_port, Routes(exact=health, under={}), port_setting="WORKER_HEALTH_PORT"
            )
        )
        self._draining = False

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._failed

    async def start(self) -> None:
        await self._store.start()
        if self._health:
            await self._health.start()
        await self._http.start()
        await self._publisher.start()
        if self._may_lose:
            log.warning(
                "at_most_once", meaning="what is answered 200 may be lost, and /opened then counts it abandoned"
            )

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
        if self._health:
            await self._health.close()

    async def _ready(self) -> Checks:
        return {
            "publishing": Check(False, "stopping") if self._draining else self._publisher.check(),
            # Told, but vital only inline: else rates are taken in while the store is away, and counted later.
            "store": await store_check(self._store, vital=self._inline is not None),
        }


def _works_on_rates(settings: Replica) -> bool:
    return settings.dispatch == "inline" and settings.work_s > 0


def _publishing(settings: Replica) -> Publishing:
    """Where the replica works on each rate itself, a batch must not wait for the work on another: each leaves at once,
    and MAX_UNCONFIRMED is the one bound."""
    if _works_on_rates(settings):
        return settings.model_copy(update={"max_in_flight": settings.max_unconfirmed})
    return settings
