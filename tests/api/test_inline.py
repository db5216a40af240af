"""The replica that counts by itself."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from api.inline import InlineBroker
from api.service import ApiService
from core.batches import Batch, encode
from core.errors import StoreRefused, StoreUnavailable
from core.fold import Fold
from core.http import LAME_DUCK_S
from core.lifecycle import until
from core.settings import EmbeddedSettings
from core.store import Applied, Opened
from core.work import Work
from store.memory import MemoryStore
from tests.api.conftest import StartService, counted, ready


class MoodyStore(MemoryStore):
    """Away while `away`, and writes without answering while `mute`; refuses the subject `poison`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"horizon_s": 60, "idempotency_s": 60, **settings})
        self.away = self.mute = False
        self.folds: list[Fold] = []

    async def check(self) -> None:
        self._is_there()

    async def apply(self, fold: Fold) -> Applied:
        self._is_there()
        if "poison" in fold.counts:
            raise StoreRefused("poisoned")
        self.folds.append(fold)
        applied = await super().apply(fold)
        if self.mute:
            raise StoreUnavailable("the answer was lost")
        return applied

    async def settle(self, batches: Any) -> None:
        self._is_there()
        await super().settle(batches)

    def _is_there(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class Clock:
    """The workers': what is at work stays there until a test puts it forward."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Replica:
    def __init__(self, service: ApiService, store: MoodyStore, client: aiohttp.ClientSession) -> None:
        self.service = service
        self.store = store
        self.client = client

    async def post(self, rate: int, subject: str = "film") -> str:
        """ "ok", or the kind of the problem."""
        async with self.client.post(f"/rate?rate={rate}&subject={subject}") as response:
            if response.status == 200:
                return "ok"
            assert response.status == 503
            return str((await response.json(content_type=None))["type"]).removeprefix("urn:fanrate:problem:")

    async def opened(self) -> dict[str, int]:
        answer: dict[str, int] = await (await self.client.get("/opened")).json()
        return answer

    async def checks(self) -> tuple[int, dict[str, str]]:
        async with self.client.get("/readyz") as response:
            return response.status, (await response.json(content_type=None))["checks"]

    async def metric(self, name: str) -> int:
        found = re.search(rf"^{name} (\S+)", await (await self.client.get("/metrics")).text(), re.MULTILINE)
        assert found, name
        return int(float(found[1]))

    async def has_unconfirmed(self, count: int) -> None:
        async with asyncio.timeout(10):
            while await self.metric("fanrate_unconfirmed_rates") != count:
                await asyncio.sleep(0.01)

    async def has_opened(self, count: int) -> None:
        async with asyncio.timeout(10):
            while await self.opened() != {"opened": count, "abandoned": 0}:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def inline(clock: Callable[[], float] = time.monotonic, **settings: Any) -> AsyncIterator[Replica]:
    made = EmbeddedSettings(port=0, dispatch="inline", **settings)
    store = MoodyStore()
    broker = InlineBroker(store, Work(made.work_s, made.work_concurrency, clock))
    service = ApiService(broker, store, made, topic="rates")
    await service.start()
    async with aiohttp.ClientSession(service.url, timeout=aiohttp.ClientTimeout(total=10)) as client:
        await ready(client)
        yield Replica(service, store, client)
    await service.close()
    await broker.close()
    await store.close()


async def test_a_200_means_counted(start: StartService) -> None:
    service = await start(dispatch="inline")
    async with aiohttp.ClientSession(service.url) as session:
        await ready(session)
        for number in range(1, 20):
            assert (await session.post("/rate?rate=5", headers={"Idempotency-Key": f"{number % 10}"})).status == 200
            totals = await (await session.get("/rates")).json()
            assert totals["count"] == min(number, 10)
        await counted(session, 10)


async def test_what_comes_together_shares_a_fold() -> None:
    async with inline() as made:
        assert await asyncio.gather(*(made.post(rate) for rate in range(60))) == ["ok"] * 60
        await counted(made.client, 60)
        assert len(made.store.folds) < 40
        assert await made.metric("fanrate_counted_rates_total") == 60
        assert await made.metric("fanrate_confirmed_rates_total") == 60


async def test_work_takes_its_time_and_so_many_are_at_work() -> None:
    """100 works of a tenth of a second, 25 at a time; one at a time would take ten seconds."""
    async with inline(work_s=0.1, work_concurrency=25, max_rates=100) as made:
        began = time.monotonic()
        assert await asyncio.gather(*(made.post(rate) for rate in range(100))) == ["ok"] * 100
        assert 0.4 <= time.monotonic() - began < 5
        await counted(made.client, 100)


async def test_a_rate_waits_only_for_what_came_before_it() -> None:
    """Ten that come one after another, one worker: they are answered one after another too."""
    clock = Clock()
    async with inline(clock, work_s=0.02, max_rates=100) as made:
        posting = []
        for rate in range(10):
            posting.append(asyncio.create_task(made.post(rate)))
            await made.has_unconfirmed(rate + 1)
        clock.now = 0.11
        assert await until(lambda: all(task.done() for task in posting[:5]), 5)
        assert not any(task.done() for task in posting[5:])
        clock.now = 1.0
        assert await asyncio.gather(*posting) == ["ok"] * 10
        await counted(made.client, 10)


async def test_opened_shows_what_is_at_work() -> None:
    clock = Clock()
    async with inline(clock, work_s=0.02, max_rates=100) as made:
        posting = [asyncio.create_task(made.post(rate)) for rate in range(3)]
        await made.has_opened(3)
        clock.now = 1.0
        assert await asyncio.gather(*posting) == ["ok"] * 3
        await counted(made.client, 3)


async def test_past_the_bound_it_refuses() -> None:
    clock = Clock()
    async with inline(clock, work_s=0.02, max_rates=2, max_unconfirmed=2) as made:
        posting = [asyncio.create_task(made.post(rate)) for rate in range(2)]
        await made.has_unconfirmed(2)
        assert await made.post(3) == "busy"
        clock.now = 1.0
        assert await asyncio.gather(*posting) == ["ok"] * 2
        await counted(made.client, 2)


async def test_a_store_that_is_away() -> None:
    """Red; 503 by the deadline; and once it is back everything counts once, also where an answer was lost."""
    async with inline(confirm_timeout_s=0.3) as made:
        made.store.away = True
        status, checks = await made.checks()
        assert (status, checks["store"]) == (503, "away")
        assert await asyncio.gather(*(made.post(rate) for rate in range(5))) == ["unconfirmed"] * 5
        made.store.mute, made.store.away = True, False
        assert await until(lambda: len(made.store.folds) > 1, 5), "it was written, and is offered again"
        made.store.mute = False
        async with asyncio.timeout(5):
            while await made.metric("fanrate_unconfirmed_rates"):
                await asyncio.sleep(0.02)
        assert await made.post(5) == "ok"
        totals = await counted(made.client, 6)
        assert totals["distribution"] == {str(rate): 1 for rate in range(6)}
        assert (await made.checks())[0] == 200


async def test_what_the_store_refuses_is_told_and_settled() -> None:
    async with inline() as made:
        answers = await asyncio.gather(made.post(1), made.post(2, "poison"), made.post(3))
        assert "not-counted" in answers
        assert await made.post(4) == "ok"
        totals = await counted(made.client, answers.count("ok") + 1)
        assert totals["distribution"]["4"] == 1


async def test_what_waited_longer_than_the_horizon_is_told_and_settled() -> None:
    store = MoodyStore(horizon_s=0.2)
    service = ApiService(
        broker := InlineBroker(store, Work(0.0, 1)), store, EmbeddedSettings(port=0, dispatch="inline"), topic="rates"
    )
    await service.start()
    async with aiohttp.ClientSession(service.url) as client:
        await ready(client)
        made = Replica(service, store, client)
        store.away = True
        posting = asyncio.create_task(made.post(1))
        await asyncio.sleep(0.5)
        store.away = False
        assert await posting == "not-counted"
        await counted(client, 0)
        await service.drain(2)
    await service.close()
    await broker.close()


async def test_relaxed_answers_at_once_and_opened_shows_it() -> None:
    """While none of the work is done, and also for longer than a request waits for its confirm."""
    clock = Clock()
    async with inline(clock, durability="relaxed", work_s=0.02, max_rates=100, confirm_timeout_s=0.1) as made:
        assert [await made.post(rate) for rate in range(10)] == ["ok"] * 10
        await made.has_opened(10)
        await asyncio.sleep(0.4)
        clock.now = 1.0
        await counted(made.client, 10)
        assert await made.metric("fanrate_requests_overdue_total") == 0


async def test_relaxed_and_killed_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed without a drain, as a kill would leave the store: nobody vouches for what was not counted."""
    monkeypatch.setattr("store.memory.LEASE_S", 0.3)
    async with inline(Clock(), durability="relaxed", work_s=0.02, max_rates=100) as made:
        assert [await made.post(rate) for rate in range(4)] == ["ok"] * 4
        await made.has_opened(4)
        await made.service.close()
        async with asyncio.timeout(10):
            while await made.store.opened() != Opened(0, 4):
                await asyncio.sleep(0.02)
        assert (await made.store.totals()).count == 0


@pytest.mark.parametrize("durability", ["confirmed", "relaxed"])
async def test_drain_finishes_what_was_taken_in(durability: str) -> None:
    """Also what is at work when silent connections are closed."""
    clock = Clock()
    async with inline(clock, durability=durability, work_s=0.01, max_rates=100) as made:
        posting = [asyncio.create_task(made.post(rate)) for rate in range(30)]
        await made.has_unconfirmed(30)
        draining = asyncio.create_task(made.service.drain(8))
        await asyncio.sleep(LAME_DUCK_S + 0.2)
        assert not draining.done()
        clock.now = 1.0
        await draining
        assert await asyncio.gather(*posting) == ["ok"] * 30
        assert (await made.store.totals()).count == 30
        assert (await made.store.opened()).opened == 0


async def test_a_mistake_in_counting_ends_the_service() -> None:
    class Mistaken(MoodyStore):
        async def apply(self, fold: Fold) -> Applied:
            raise ZeroDivisionError

    store = Mistaken()
    broker = InlineBroker(store, Work(0.0, 1))
    service = ApiService(broker, store, EmbeddedSettings(port=0, dispatch="inline"), topic="rates")
    await service.start()
    publishing = asyncio.create_task(broker.publish("rates", _body(), 1))
    assert isinstance(await asyncio.wait_for(asyncio.shield(service.failed), 2), ZeroDivisionError)
    publishing.cancel()
    await service.close()
    await broker.close()


def _body() -> bytes:
    return encode(Batch(1, 0, "a" * 32, 0, 1, time.time(), [("film", 5)]))
