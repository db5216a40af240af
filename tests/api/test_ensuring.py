"""A replica looks again and again whether its topic and groups stand: not every broker tells who publishes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from structlog.testing import capture_logs

from api.publisher import ENSURE_INTERVAL_S, Publisher
from brokers.memory import MemoryBroker
from core.errors import BrokerError, BrokerUnavailable
from core.lifecycle import until
from core.settings import Publishing
from store.memory import MemoryStore

GROUPS = ["counters", "audit"]
SOON_S = 10 * ENSURE_INTERVAL_S


class Broker(MemoryBroker):
    """Answers `ensure` with `error` while there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BrokerError | None = None
        self.asked = 0

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        await super().ensure(topic, groups)

    def delete(self, topic: str, group: str) -> None:
        del self._topics[topic][group]

    async def asked_again(self) -> bool:
        wanted = self.asked + 2
        return await until(lambda: self.asked >= wanted, 2 * SOON_S)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker()
    yield made
    await made.close()


@pytest.fixture
async def publisher(broker: Broker) -> AsyncIterator[Publisher]:
    store = MemoryStore(horizon_s=60, idempotency_s=60)
    made = Publisher(broker, store, Publishing(), topic="rates", groups=GROUPS, max_rates=10)
    await made.start()
    assert await until(lambda: made.check().ok, 5)
    yield made
    await made.close()


async def test_a_group_that_somebody_deleted_is_made_again(broker: Broker, publisher: Publisher) -> None:
    broker.delete("rates", "audit")
    assert await publisher.join([("film", 1)]) is None, "this broker confirms while one group is left"
    assert await until(lambda: "audit" in broker._topics["rates"], SOON_S)
    assert await publisher.join([("film", 2)]) is None
    assert [broker.unread("rates", group) for group in GROUPS] == [2, 1]


async def test_it_is_quiet_while_all_stands(broker: Broker, publisher: Publisher) -> None:
    with capture_logs() as logged:
        assert await broker.asked_again()
    assert logged == []


async def test_a_look_that_is_not_answered_changes_nothing(broker: Broker, publisher: Publisher) -> None:
    broker.error = BrokerUnavailable("no answer")
    with capture_logs() as logged:
        assert await broker.asked_again()
    assert (logged, publisher.check().ok) == ([], True)
    assert await publisher.join([("film", 1)]) is None


async def test_a_topic_that_somebody_made_unsafe_is_named(broker: Broker, publisher: Publisher) -> None:
    broker.error = BrokerError("topic 'rates': retention could lose messages")
    assert await until(lambda: not publisher.check().ok, SOON_S)
    assert "retention could lose messages" in str(publisher.check())
    waiter = publisher.join([("film", 1)])
    assert await broker.asked_again()
    assert broker.unread("rates", "counters") == 0, "nothing is published to it"
    broker.error = None
    assert await waiter is None
    assert publisher.check().ok
