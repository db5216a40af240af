"""Group commit, over a broker in memory whose confirms can be held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import api.lane
from api.lane import Group, Lane
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, MessageTooLarge, Problem, PublishTimeout
from core.lifecycle import Tasks, until
from core.rates import Rate
from core.settings import Publishing
from tests.api.held import HeldBroker


class Bench:
    """A lane on a held broker."""

    def __init__(self, *, at_once: bool = False, **settings: Any) -> None:
        self.broker = HeldBroker()
        self.lane = Lane(self.broker, "rates", 0, Publishing(**settings), 100, Tasks(), at_once=at_once)

    async def start(self) -> Bench:
        await self.broker.ensure("rates", ["counters"])
        self.lane.ready.set()
        return self

    async def close(self) -> None:
        self.lane.close()
        await self.lane._tasks.cancel()

    def join(self, *rates: int) -> asyncio.Future[Problem | None]:
        return self.join_all([("film", rate) for rate in rates])

    def join_all(self, rates: list[Rate]) -> asyncio.Future[Problem | None]:
        waiter: asyncio.Future[Problem | None] = asyncio.get_running_loop().create_future()
        self.lane.join(rates, waiter)
        return waiter

    @property
    def sizes(self) -> list[int]:
        return [len(batch.rates) for batch in self.broker.published]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = await Bench().start()
    yield made
    await made.close()


async def test_an_idle_lane_publishes_at_once(bench: Bench) -> None:
    assert await asyncio.wait_for(bench.join(5), 1) is None
    assert bench.sizes == [1]


async def test_rates_of_one_turn_share_a_batch(bench: Bench) -> None:
    waiters = [bench.join(rate) for rate in range(20)]
    await asyncio.gather(*waiters)
    assert bench.sizes == [20]
    assert bench.broker.published[0].rates == [("film", rate) for rate in range(20)]


async def test_two_in_flight_then_the_open_batch_grows_until_a_confirm(bench: Bench) -> None:
    bench.broker.confirming.clear()
    waiters = []
    for rate in range(10):
        waiters.append(bench.join(rate))
        await asyncio.sleep(0.001)
    assert bench.sizes == [1, 1]
    bench.broker.confirming.set()
    assert await asyncio.gather(*waiters) == [None] * 10
    assert bench.sizes == [1, 1, 8]


async def test_a_batch_leaves_beside_another_once_it_is_as_large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.lane, "SLOW_S", 60.0)
    bench.broker.confirming.clear()
    waiters = [bench.join(*range(10))]
    await asyncio.sleep(0.001)
    for rate in range(9):
        waiters.append(bench.join(rate))
        await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    assert bench.sizes == [10]
    waiters += [bench.join(1), bench.join(2)]
    await asyncio.sleep(0.001)
    assert bench.sizes == [10, 11]
    waiters.append(bench.join(3))
    await asyncio.sleep(0.001)
    assert bench.sizes == [10, 11]
    bench.broker.confirming.set()
    assert await asyncio.gather(*waiters) == [None] * 13
    assert bench.sizes == [10, 11, 1]


async def test_a_small_batch_leaves_with_the_confirm_of_a_large_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.lane, "SLOW_S", 60.0)
    bench.broker.confirming.clear()
    waiters = [bench.join(*range(10))]
    await asyncio.sleep(0.001)
    waiters.append(bench.join(1))
    await asyncio.sleep(0.001)
    assert bench.sizes == [10]
    bench.broker.confirming.set()
    assert await asyncio.gather(*waiters) == [None] * 2
    assert bench.sizes == [10, 1]


@pytest.mark.parametrize(("slow_s", "at_once"), [(0.0, False), (60.0, True)])
async def test_nobody_waits_for_others_behind_a_slow_publish_or_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, slow_s: float, at_once: bool
) -> None:
    monkeypatch.setattr(api.lane, "SLOW_S", slow_s)
    bench = await Bench(at_once=at_once).start()
    bench.broker.confirming.clear()
    waiters = [bench.join(*range(10))]
    await asyncio.sleep(0.001)
    waiters.append(bench.join(1))
    await asyncio.sleep(0.001)
    assert bench.sizes == [10, 1]
    bench.broker.confirming.set()
    assert await asyncio.gather(*waiters) == [None] * 2
    await bench.close()


async def test_a_full_batch_leaves_beside_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.lane, "SLOW_S", 60.0)
    bench.broker.confirming.clear()
    waiters = [bench.join(*range(100))]
    await asyncio.sleep(0.001)
    waiters += [bench.join(*range(60)), bench.join(*range(50))]
    await asyncio.sleep(0.001)
    assert bench.sizes == [100, 60]
    bench.broker.confirming.set()
    assert await asyncio.gather(*waiters) == [None] * 3


async def test_sequences_and_totals(bench: Bench) -> None:
    for rate in range(3):
        await bench.join(rate, rate)
    first, second, third = bench.broker.published
    assert {first.producer, second.producer, third.producer} == {first.producer}
    assert [batch.sequence for batch in bench.broker.published] == [0, 1, 2]
    assert [batch.opened for batch in bench.broker.published] == [2, 4, 6]
    (producer,) = bench.lane.producers()
    assert (producer.opened, producer.confirmed) == (6, 6)


async def test_a_request_travels_whole(bench: Bench) -> None:
    bench.broker.confirming.clear()
    waiters = [bench.join(*range(1)), bench.join(*range(1))]
    await asyncio.sleep(0.001)
    waiters += [bench.join(*range(60)), bench.join(*range(60)), bench.join(*range(40)), bench.join(1)]
    bench.broker.confirming.set()
    await asyncio.gather(*waiters)
    assert bench.sizes == [2, 60, 100, 1] or bench.sizes == [2, 60, 1, 100]
    assert sum(bench.sizes) == 163


async def test_a_request_that_no_batch_holds(bench: Bench) -> None:
    with pytest.raises(Problem, match="at most 100 rates"):
        bench.join(*range(101))
    assert bench.lane.unconfirmed == 0


async def test_bytes_bound_a_batch() -> None:
    bench = await Bench(max_batch_bytes=1024).start()
    bench.broker.confirming.clear()
    waiters = [bench.join_all([("x" * 128, 1)]) for _ in range(40)]
    bench.broker.confirming.set()
    await asyncio.gather(*waiters)
    assert max(bench.sizes) == 4
    await bench.close()


async def test_a_cancelled_request_harms_no_other(bench: Bench) -> None:
    waiters = [bench.join(1), bench.join(2)]
    waiters[0].cancel()
    assert await waiters[1] is None
    assert bench.sizes == [2]


@pytest.mark.parametrize("error", [PublishTimeout("late"), BrokerUnavailable("gone")])
async def test_a_failed_publish_is_repeated_under_its_identity(bench: Bench, error: BrokerError) -> None:
    bench.broker.errors = [error]
    waiter = bench.join(5)
    if isinstance(error, BrokerUnavailable):
        assert await until(lambda: not bench.lane.ready.is_set(), 1), "it asks for the topic to be ensured"
        bench.lane.ready.set()
    assert await waiter is None
    first, second = bench.broker.published
    assert first == second


async def test_an_overdue_request_is_answered_and_its_batch_stays() -> None:
    bench = await Bench(confirm_timeout_s=0.05).start()
    bench.broker.confirming.clear()
    waiters = [bench.join(5)]
    await asyncio.sleep(0.06)
    waiters.append(bench.join(6))
    bench.lane.answer_overdue()
    problem = await waiters[0]
    assert problem is not None
    assert (problem.status, problem.kind) == (503, "unconfirmed")
    assert "may or may not count" in problem.detail
    assert not waiters[1].done()
    assert bench.lane.unconfirmed == 2
    bench.broker.confirming.set()
    assert await waiters[1] is None
    assert bench.lane.unconfirmed == 0
    assert bench.broker.unread("rates", "counters") == 2
    await bench.close()


async def test_a_full_broker_is_told_at_once_and_the_batch_stays(bench: Bench) -> None:
    bench.broker.errors = [BrokerFull("1 GiB")]
    problem = await bench.join(5)
    assert problem is not None
    assert problem.kind == "broker-full"
    assert bench.lane.full == "1 GiB"
    assert await until(lambda: bench.lane.full is None, 2)
    assert bench.lane.unconfirmed == 0
    assert bench.broker.unread("rates", "counters") == 1


async def test_a_full_broker_that_then_refuses_for_good(bench: Bench) -> None:
    """It has room for others: it must be tried."""
    bench.broker.errors = [BrokerFull("1 GiB"), MessageTooLarge("its limit was lowered")]
    problem = await bench.join(5)
    assert problem is not None
    assert problem.kind == "broker-full"
    assert await until(lambda: not bench.lane.unconfirmed, 2)
    assert bench.lane.full is None
    assert len(bench.lane.take_refused()) == 1


async def test_what_is_overdue_is_answered_once_and_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await Bench(confirm_timeout_s=0.05, max_in_flight=64, at_once=True).start()
    bench.broker.confirming.clear()
    waiters = []
    for rate in range(50):
        waiters.append(bench.join(rate))
        await asyncio.sleep(0)
    assert await until(lambda: bench.lane.oldest_s() > 0.1, 1)
    bench.lane.answer_overdue()
    assert [problem.kind for problem in await asyncio.gather(*waiters) if problem] == ["unconfirmed"] * 50
    late = bench.join(50)
    await asyncio.sleep(0.001)
    looked_at = []
    fail = Group.fail
    monkeypatch.setattr(Group, "fail", lambda self, *given: looked_at.append(self.rates) or fail(self, *given))
    bench.lane.answer_overdue()
    assert looked_at == [[("film", 50)]]
    assert bench.lane.oldest_s() > 0.1
    bench.broker.confirming.set()
    assert await late is None
    assert await until(lambda: not bench.lane.unconfirmed, 1)
    assert bench.lane.oldest_s() == 0
    assert bench.broker.unread("rates", "counters") == len(bench.sizes)
    await bench.close()


async def test_a_new_producer_after_an_hour(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.join(1)
    monkeypatch.setattr(api.lane, "PRODUCER_LIFETIME_S", -1.0)
    await bench.join(2, 3)
    first, second = bench.broker.published
    assert first.producer != second.producer
    assert (second.sequence, second.opened) == (0, 2)
    former, present = bench.lane.producers()
    assert [(each.opened, each.confirmed) for each in (former, present)] == [(1, 1), (2, 2)]
    bench.lane.forget({former.id: 0, present.id: 2})
    assert bench.lane.producers() == [former, present], "the store does not know of its last confirm"
    bench.lane.forget({former.id: 1, present.id: 2})
    assert bench.lane.producers() == [present]


async def test_publishes_can_be_spaced() -> None:
    bench = await Bench(min_interval_s=0.002, max_in_flight=8).start()
    waiters = []
    for rate in range(50):
        waiters.append(bench.join(rate))
        await asyncio.sleep(0)
    await asyncio.gather(*waiters)
    assert len(bench.sizes) < 10
    assert sum(bench.sizes) == 50
    await bench.close()


async def test_a_spaced_lane_rests_until_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of an interval by the arithmetic of floats is no time to wait for: a timer of so little turns the
    event loop over and over until the clock ticks."""
    bench = await Bench(min_interval_s=0.002).start()
    looked = 0
    leave = bench.lane._leave

    def look() -> None:
        nonlocal looked
        looked += 1
        leave()

    monkeypatch.setattr(bench.lane, "_leave", look)
    for rate in range(100):
        await bench.join(rate)
    assert len(bench.sizes) == 100
    assert looked <= 3 * 100
    await bench.close()


async def test_close_answers_what_waits(bench: Bench) -> None:
    bench.broker.confirming.clear()
    waiters = [bench.join(1), bench.join(2)]
    await asyncio.sleep(0.001)
    waiters.append(bench.join(3))
    await bench.close()
    problems = await asyncio.gather(*waiters)
    assert [problem.kind for problem in problems if problem] == ["stopping"] * 3
