"""Several topics behind one publisher: each request goes to one, and each topic fails for itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from api.dispatch import chooser
from api.publisher import Publisher
from api.service import ApiService
from brokers.memory import MemoryBroker
from core import counting
from core.errors import BrokerError, BrokerFull, Problem
from core.lifecycle import until
from core.settings import EmbeddedSettings, Publishing, TopicChoice
from process.consumer import Consumer
from process.reader import Reading
from store.memory import MemoryStore
from tests.api.conftest import StartService, counted, ready
from tests.api.held import HeldBroker

TOPICS = ["rates_1", "rates_2", "rates_3"]


class TroubledBroker(HeldBroker):
    """Refuses what is in `full`, and will not make what is in `damaged`."""

    def __init__(self) -> None:
        super().__init__()
        self.full: set[str] = set()
        self.damaged: set[str] = set()
        self.topics: Counter[str] = Counter()

    async def ensure(self, topic: str, groups: Any) -> None:
        if topic in self.damaged:
            raise BrokerError(f"topic {topic!r} is damaged")
        await super().ensure(topic, groups)

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if topic in self.full:
            raise BrokerFull("no room")
        if topic in self.damaged:
            raise BrokerError("gone")
        await super().publish(topic, body, timeout_s)
        self.topics[topic] += 1


@pytest.fixture
async def broker() -> AsyncIterator[TroubledBroker]:
    made = TroubledBroker()
    yield made
    made.confirming.set()
    await made.close()


@pytest.fixture
async def publisher(broker: TroubledBroker) -> AsyncIterator[Publisher]:
    """In turns over three topics."""
    made = _publisher(broker, MemoryStore(horizon_s=60, idempotency_s=60))
    await made.start()
    assert await until(lambda: made.check().ok, 5)
    yield made
    await made.close()


def _publisher(broker: MemoryBroker, store: MemoryStore, **settings: Any) -> Publisher:
    return Publisher(
        broker,
        store,
        Publishing(**settings),
        topic=TOPICS,
        groups=[counting.GROUP],
        max_rates=10,
        choose=chooser("round_robin", len(TOPICS)),
    )


def test_in_turns() -> None:
    choose = chooser("round_robin", 3)
    assert [choose([("film", 1)]) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_at_random() -> None:
    choose = chooser("random", 3)
    assert set(Counter(choose([("film", 1)]) for _ in range(200))) == {0, 1, 2}


def test_by_the_first_subject() -> None:
    """CRC-32 of UTF-8, modulo: the same in every replica, whatever language it is written in."""
    choose = chooser("hash", 3)
    subjects = ["default", "film-42", "film-7", "film-8"]
    assert [choose([(subject, 1), ("other", 2)]) for subject in subjects] == [1, 1, 2, 0]


async def test_a_request_goes_to_one_topic(publisher: Publisher, broker: TroubledBroker) -> None:
    for rate in range(9):
        assert await publisher.join([("film", rate), ("other", rate)]) is None
    assert broker.topics == dict.fromkeys(TOPICS, 3)
    producers = {batch.producer for batch in broker.published}
    assert len(producers) == 3, "each lane is a producer"


async def test_a_full_topic_refuses_only_its_own(publisher: Publisher, broker: TroubledBroker) -> None:
    broker.full = {"rates_2"}
    problems = [await publisher.join([("film", rate)]) for rate in range(3)]
    assert [problem.kind if problem else None for problem in problems] == [None, "broker-full", None]
    answers = []
    for rate in range(6):
        try:
            answers.append(await publisher.join([("film", rate)]))
        except Problem as exc:
            answers.append(exc.kind)
    assert answers == [None, "broker-full", None] * 2
    assert str(publisher.check()) == "rates_2: the broker is full: no room"
    broker.full = set()
    assert await until(lambda: publisher.check().ok, 5)
    assert sum(broker.topics.values()) == 7, "the first that found it full was kept"


async def test_a_topic_that_does_not_stand_delays_only_its_own(publisher: Publisher, broker: TroubledBroker) -> None:
    broker.damaged = {"rates_3"}
    waiters = [publisher.join([("film", rate)]) for rate in range(6)]
    assert await asyncio.gather(*(waiters[index] for index in (0, 1, 3, 4))) == [None] * 4
    assert await until(lambda: str(publisher.check()) == "rates_3: topic 'rates_3' is damaged", 5)
    assert not waiters[2].done()
    broker.damaged = set()
    assert await asyncio.gather(*waiters) == [None] * 6
    assert await until(lambda: publisher.check().ok, 5)


async def test_the_bound_is_one_for_all(broker: TroubledBroker) -> None:
    publisher = _publisher(broker, MemoryStore(horizon_s=60, idempotency_s=60), max_unconfirmed=10)
    await publisher.start()
    assert await until(lambda: publisher.check().ok, 5)
    broker.confirming.clear()
    waiters = [publisher.join([("film", 1)] * 3) for _ in range(3)]
    with pytest.raises(Problem, match="9 rates are unconfirmed, at most 10"):
        publisher.join([("film", 1)] * 2)
    broker.confirming.set()
    assert await asyncio.gather(*waiters) == [None] * 3
    metrics = {family.name: family.samples[0].value for family in publisher.metrics()}
    assert (metrics["fanrate_confirmed_rates"], metrics["fanrate_unconfirmed_rates"]) == (9, 0)
    await publisher.drain(2)
    await publisher.close()


@pytest.mark.parametrize("choice", ["round_robin", "random", "hash"])
async def test_all_topics_are_counted_and_opened_is_right(start: StartService, choice: TopicChoice) -> None:
    service = await start(dispatch="topics", topics=4, topic_choice=choice)
    async with aiohttp.ClientSession(service.url) as session:
        await ready(session)
        for rate in range(40):
            body = [{"rate": rate, "subject": f"film-{rate}"}, rate]
            assert (await session.post("/rates", json=body)).status == 200
            if rate % 10 == 0:
                repeat = {"headers": {"Idempotency-Key": "same"}, "json": [7]}
                assert (await session.post("/rates", **repeat)).status == 200
        await counted(session, 81)


async def test_opened_over_topics_that_wait(start_apart: Callable[..., Any]) -> None:
    """What waits in a topic that nobody reads is opened; what was counted from the others is not."""
    session, broker, store = await start_apart()
    for rate in range(9):
        assert (await session.post(f"/rate?rate={rate}")).status == 200
    reading = Reading(["rates_1", "rates_3"], [counting.GROUP], counting.GROUP)
    consumer = Consumer(broker, store, topic="rates", oldest_allowed_s=60, reading=reading)
    await consumer.start()
    await _opened(session, 3)
    assert broker.unread("rates_2", counting.GROUP) == 3
    rest = Reading(["rates_2"], [counting.GROUP], counting.GROUP)
    late = Consumer(broker, store, topic="rates", oldest_allowed_s=60, reading=rest)
    await late.start()
    await counted(session, 9)
    await late.close()
    await consumer.close()


@pytest.fixture
async def start_apart() -> AsyncIterator[Callable[..., Any]]:
    """A replica with three topics, without a consumer."""
    broker, store = MemoryBroker(), MemoryStore(horizon_s=60, idempotency_s=60)
    service = ApiService(broker, store, EmbeddedSettings(port=0, dispatch="topics"), topic="rates")
    await service.start()
    async with aiohttp.ClientSession(service.url) as session:

        async def started() -> tuple[aiohttp.ClientSession, MemoryBroker, MemoryStore]:
            await ready(session)
            return session, broker, store

        yield started
    await service.close()
    await broker.close()
    await store.close()


async def _opened(session: aiohttp.ClientSession, count: int) -> None:
    answer: dict[str, int] = {}
    for _ in range(300):
        answer = await (await session.get("/opened")).json()
        if answer == {"opened": count, "abandoned": 0}:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(answer)
