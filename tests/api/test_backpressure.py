"""A replica whose broker does not keep up: what is refused was not taken in, and what was taken in is never dropped."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from api.publisher import Publisher
from api.service import ApiService
from core import counting
from core.errors import Problem
from core.lifecycle import until
from core.settings import EmbeddedSettings, Publishing
from process.consumer import Consumer
from store.memory import MemoryStore
from tests.api.conftest import counted, ready
from tests.api.held import HeldBroker


class Replica:
    """One replica on a held broker, its client, and what it answered. Each rate is sent once, so that the distribution
    at the end says which of them were taken in."""

    def __init__(self, broker: HeldBroker, store: MemoryStore, client: aiohttp.ClientSession) -> None:
        self.broker = broker
        self._store = store
        self._client = client

    async def post(self, *rates: int) -> str:
        """ "confirmed", or the kind of the problem, which must be one that is worth another try."""
        async with self._client.post("/rates", json=list(rates)) as response:
            if response.status == 200:
                return "confirmed"
            document = await response.json(content_type="application/problem+json")
            assert (response.status, document["status"]) == (503, 503)
            assert int(response.headers["Retry-After"]) >= 1
            return str(document["type"]).removeprefix("urn:fanrate:problem:")

    def posting(self, *rates: int) -> asyncio.Task[str]:
        return asyncio.create_task(self.post(*rates))

    async def publishing(self) -> str:
        """What /readyz says of it; it decides the status."""
        async with self._client.get("/readyz") as response:
            said = (await response.json())["checks"]["publishing"]
            assert (response.status == 200) == (said == "ok")
            return str(said)

    async def unconfirmed(self) -> int:
        async with self._client.get("/metrics") as response:
            found = re.search(r"^fanrate_unconfirmed_rates (\d+)", await response.text(), re.MULTILINE)
        assert found
        return int(found[1])

    async def has_unconfirmed(self, count: int) -> None:
        async with asyncio.timeout(5):
            while await self.unconfirmed() != count:
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[None]:
        consumer = Consumer(self.broker, self._store, topic="rates", oldest_allowed_s=60)
        await consumer.start()
        yield
        await consumer.close()

    async def counted_exactly(self, *rates: int) -> None:
        """All of `rates` are counted, each once, and no other."""
        async with self.consumer():
            totals = await counted(self._client, len(rates))
        assert totals["distribution"] == {str(rate): 1 for rate in sorted(rates)}


@asynccontextmanager
async def replica(*, max_bytes: int = 64 * 2**20, **settings: Any) -> AsyncIterator[Replica]:
    broker = HeldBroker(max_bytes=max_bytes)
    store = MemoryStore(horizon_s=60, idempotency_s=60)
    service = ApiService(broker, store, EmbeddedSettings(port=0, **settings), topic="rates")
    await service.start()
    async with aiohttp.ClientSession(service.url, timeout=aiohttp.ClientTimeout(total=5)) as client:
        await ready(client)
        yield Replica(broker, store, client)
    await service.close()
    await broker.close()
    await store.close()


@pytest.fixture
async def broker() -> AsyncIterator[HeldBroker]:
    made = HeldBroker()
    yield made
    made.confirming.set()
    await made.close()


async def test_past_the_bound_a_request_is_refused_whole(broker: HeldBroker) -> None:
    store = MemoryStore(horizon_s=60, idempotency_s=60)
    settings = Publishing(max_unconfirmed=4)
    publisher = Publisher(broker, store, settings, topic="rates", groups=[counting.GROUP], max_rates=4)
    await publisher.start()
    assert await until(lambda: publisher.check().ok, 5)
    broker.confirming.clear()
    waiters = [publisher.join([("film", 1), ("film", 2), ("film", 3)])]
    with pytest.raises(Problem, match="3 rates are unconfirmed, at most 4") as refused:
        publisher.join([("film", 4), ("film", 5)])
    assert (refused.value.status, refused.value.kind) == (503, "busy")
    assert refused.value.headers == {"Retry-After": "1"}
    waiters.append(publisher.join([("film", 6)]))
    broker.confirming.set()
    assert await asyncio.gather(*waiters) == [None, None]
    assert await publisher.join([("film", 7), ("film", 8)]) is None, "it works again after the confirms"
    await publisher.close()
    assert sorted(rate for batch in broker.published for _, rate in batch.rates) == [1, 2, 3, 6, 7, 8]


async def test_past_the_bound_503_until_the_confirms() -> None:
    async with replica(max_unconfirmed=3, max_rates=2) as made:
        made.broker.confirming.clear()
        waiting = [made.posting(1, 2)]
        await made.has_unconfirmed(2)
        assert await made.post(3, 4) == "busy"
        assert await made.unconfirmed() == 2, "nothing of it was taken in"
        waiting.append(made.posting(5))
        await made.has_unconfirmed(3)
        assert [await made.post(rate) for rate in range(6, 20)] == ["busy"] * 14
        assert await made.unconfirmed() == 3
        made.broker.confirming.set()
        assert await asyncio.gather(*waiting) == ["confirmed"] * 2
        assert await made.post(20) == "confirmed"
        await made.counted_exactly(1, 2, 5, 20)


async def test_a_confirm_that_does_not_come() -> None:
    """The request is told in time and the replica says so; the rate is counted all the same, once."""
    async with replica(confirm_timeout_s=0.3) as made:
        made.broker.confirming.clear()
        began = time.monotonic()
        assert await made.post(1) == "unconfirmed"
        assert 0.3 <= time.monotonic() - began < 4, "sooner than the 5 s that are the default"
        assert re.search(r"no confirm for \d+ s", await made.publishing())
        assert await made.unconfirmed() == 1, "its batch stays"
        made.broker.confirming.set()
        await made.has_unconfirmed(0)
        assert await made.publishing() == "ok"
        assert await made.post(2) == "confirmed"
        await made.counted_exactly(1, 2)


async def test_a_full_broker() -> None:
    """The first to find it full is kept and sent again; the others are not taken in until there is room."""
    async with replica(max_bytes=1000) as made:
        taken_in = []
        answer = "confirmed"
        while answer == "confirmed" and len(taken_in) < 100:
            taken_in.append(len(taken_in))
            answer = await made.post(taken_in[-1])
        assert answer == "broker-full"
        assert 1 < len(taken_in) < 100
        assert [await made.post(rate) for rate in range(90, 100)] == ["broker-full"] * 10
        assert await made.unconfirmed() == 1
        assert "the broker is full" in await made.publishing()
        async with made.consumer():
            await made.has_unconfirmed(0)
            assert await made.publishing() == "ok"
            assert await made.post(100) == "confirmed"
        await made.counted_exactly(*taken_in, 100)
