"""The embedded service: API, broker, store and consumer in one process, with nothing but Python. For trying out."""

from __future__ import annotations

from api.service import ApiService
from brokers.memory import MemoryBroker
from core import counting, program
from core.lifecycle import Deadline, serve, until
from core.logs import configure
from core.settings import EmbeddedSettings, load
from process.consumer import Consumer
from process.service import oldest_allowed_s
from store.memory import MemoryStore

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
        self._topic = settings.topic
        self._broker = MemoryBroker()
        self._store = MemoryStore(horizon_s=settings.horizon_s, idempotency_s=settings.idempotency_s)
        self._api = ApiService(self._broker, self._store, settings, topic=settings.topic)
        self._consumer = Consumer(
            self._broker, self._store, topic=settings.topic, oldest_allowed_s=oldest_allowed_s(settings)
        )

    @property
    def url(self) -> str:
        return self._api.url

    async def start(self) -> None:
        await self._api.start()
        await self._consumer.start()

    async def drain(self, timeout_s: float) -> None:
        """The API first, then the queue empties, then the consumer."""
        deadline = Deadline(timeout_s)
        await self._api.drain(deadline.left_s)
        await until(lambda: not self._broker.unread(self._topic, counting.GROUP), deadline.left_s)
        await self._consumer.drain(deadline.left_s)

    async def close(self) -> None:
        await self._api.close()
        await self._consumer.close()
        await self._broker.close()
        await self._store.close()


async def _main() -> None:
    settings = load(EmbeddedSettings)
    configure(settings, service="embedded")
    service = EmbeddedService(settings)
    await serve(service, drain_s=settings.drain_s, started=lambda: print(_GREETING.format(url=service.url), flush=True))


def main() -> None:
    """Run until a signal; settings from the environment."""
    program.run(_main)
