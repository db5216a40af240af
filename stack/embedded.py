"""The embedded service: API, broker, store and consumer in one process, with nothing but Python. For trying out."""

from __future__ import annotations

import asyncio

from api.service import ApiService
from brokers.memory import MemoryBroker
from core import counting, program
from core.lifecycle import Deadline, serve, until
from core.logs import configure
from core.settings import EmbeddedSettings, load
from process.consumer import Consumer
from process.service import oldest_allowed_s
from store.memory import MemoryStore

_TOPIC = "rates"

_GREETING = """\
Fanrate listens on {url}
In memory: nothing survives a restart. With NATS and Redis: make up BROKER=nats

  curl -X POST '{url}/rate?rate=5&subject=film-42'
  curl {url}/rates/film-42
  curl {url}/opened

Ctrl-C stops it."""


class EmbeddedService:
    """A lifecycle service: the same parts as a real topology, wired to a broker and a store in memory."""

    def __init__(self, settings: EmbeddedSettings) -> None:
        self._broker = MemoryBroker()
        self._store = MemoryStore(horizon_s=settings.horizon_s, idempotency_s=settings.idempotency_s)
        self._consumer = Consumer(self._broker, self._store, topic=_TOPIC, oldest_allowed_s=oldest_allowed_s(settings))
        self._api = ApiService(self._broker, self._store, settings, topic=_TOPIC, metrics=[self._consumer.metrics])
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        for part in (self._api, self._consumer):
            part.failed.add_done_callback(self._fail)

    @property
    def url(self) -> str:
        return self._api.url

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._failed

    async def start(self) -> None:
        await self._api.start()
        await self._consumer.start()

    async def drain(self, timeout_s: float) -> None:
        """The API first, then the queue empties, then the consumer."""
        deadline = Deadline(timeout_s)
        await self._api.drain(deadline.left_s)
        await until(lambda: not self._broker.unread(_TOPIC, counting.GROUP), deadline.left_s)
        await self._consumer.drain(deadline.left_s)

    async def close(self) -> None:
        await self._api.close()
        await self._consumer.close()
        await self._broker.close()
        await self._store.close()

    def _fail(self, part: asyncio.Future[BaseException]) -> None:
        if not part.cancelled() and not self._failed.done():
            self._failed.set_result(part.result())


async def _main() -> None:
    settings = load(EmbeddedSettings)
    configure(settings, service="embedded")
    service = EmbeddedService(settings)
    await serve(service, drain_s=settings.drain_s, started=lambda: print(_GREETING.format(url=service.url), flush=True))


def main() -> None:
    """Run until a signal; settings from the environment."""
    program.run(_main)
