"""The embedded service: API, broker, store and consumer in one process, with nothing but Python. For trying out."""

from __future__ import annotations

import asyncio

from api.inline import InlineBroker
from api.service import ApiService
from brokers.base import Broker
from brokers.memory import MemoryBroker
from core import counting, program
from core.commands import remedy
from core.lifecycle import Deadline, first_failure, serve, until
from core.logs import configure
from core.sections import load
from core.settings import EmbeddedSettings
from core.work import Work
from process.consumer import Consumer
from process.reader import Reading
from process.service import oldest_allowed_s
from store.memory import MemoryStore

_TOPIC = "rates"

_GREETING = """\
Fanrate listens on {url}
In memory: nothing survives a restart. With NATS and Redis: {up}

  curl -X POST '{url}/rate?rate=5&subject=film-42'
  curl {url}/rates/film-42
  curl {url}/opened

Ctrl-C stops it."""


class EmbeddedService:
    """A lifecycle service: the same parts as a real topology, wired to a broker and a store in memory. With
    DISPATCH=inline there is neither queue nor consumer."""

    def __init__(self, settings: EmbeddedSettings) -> None:
        self._store = MemoryStore(horizon_s=settings.horizon_s, idempotency_s=settings.idempotency_s)
        self._topics = settings.topic_names(_TOPIC)
        self._queue: MemoryBroker | None = None
        self._consumer: Consumer | None = None
        work = Work(settings.work_s, settings.work_concurrency)
        if settings.dispatch == "inline":
            self._broker: Broker = InlineBroker(self._store, work)
        else:
            self._broker = self._queue = MemoryBroker()
            self._consumer = Consumer(
                self._queue,
                self._store,
                topic=_TOPIC,
                oldest_allowed_s=oldest_allowed_s(settings),
                reading=Reading(self._topics, [counting.GROUP], counting.GROUP),
                work=work,
            )
        metrics = [self._consumer.metrics] if self._consumer else []
        self._api = ApiService(self._broker, self._store, settings, topic=_TOPIC, metrics=metrics)
        self._failed = first_failure(self._api, *([self._consumer] if self._consumer else []))

    @property
    def url(self) -> str:
        return self._api.url

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._failed

    async def start(self) -> None:
        await self._api.start()
        if self._consumer:
            await self._consumer.start()

    async def drain(self, timeout_s: float) -> None:
        """The API first, then the queue empties, then the consumer."""
        deadline = Deadline(timeout_s)
        await self._api.drain(deadline.left_s)
        if self._consumer:
            await until(self._all_read, deadline.left_s)
            await self._consumer.drain(deadline.left_s)

    async def close(self) -> None:
        await self._api.close()
        if self._consumer:
            await self._consumer.close()
        await self._broker.close()
        await self._store.close()

    def _all_read(self) -> bool:
        return self._queue is None or not any(self._queue.unread(topic, counting.GROUP) for topic in self._topics)


async def _main() -> None:
    settings = load(EmbeddedSettings)
    configure(settings, service="embedded")
    service = EmbeddedService(settings)
    await serve(service, drain_s=settings.drain_s, started=lambda: _greet(service.url))


def _greet(url: str) -> None:
    print(_GREETING.format(url=url, up=remedy("make up BROKER=nats", "fanrate up --broker nats")), flush=True)


def main() -> None:
    """Run until a signal; settings from the environment."""
    program.run(_main)
