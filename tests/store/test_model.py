"""Exactly once, held against a plain model: whatever is repeated, reordered, split over consumers, keyed, buried or
reported."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.batches import Batch, Key
from core.counting import count
from core.endpoints import Endpoint
from core.store import Lease, Opened, Store
from stack.member import Member
from store.memory import MemoryStore
from store.redis import RedisStore

KEYS = [letter * 32 for letter in "abc"]
PRODUCERS = [digit * 32 for digit in "12"]


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    """Batches of two producers; some rates under keys, the same key in several batches. A key stands for its rates, so
    all spans of one key hold the same."""
    of_key = {key: [(f"k{number}", number)] * (number + 1) for number, key in enumerate(KEYS)}
    made = []
    for producer in PRODUCERS:
        opened = 0
        for sequence in range(draw(st.integers(1, 4))):
            rates: list[tuple[str, int]] = []
            keys = []
            for _ in range(draw(st.integers(1, 4))):
                if draw(st.booleans()):
                    rates.append((draw(st.sampled_from("xyz")), draw(st.integers(-2, 2))))
                else:
                    key = draw(st.sampled_from(KEYS))
                    keys.append(Key(key, len(rates), len(of_key[key])))
                    rates += of_key[key]
            opened += len(rates)
            made.append(Batch(1, 0, producer, sequence, opened, time.time(), rates, keys))
    return made


@dataclass(frozen=True, slots=True)
class Round:
    """What takes place at the same time, after `leases`."""

    leases: list[Lease]
    buried: list[Batch]
    """Settled as dead letters; a fetch of one, then or later, is its redrive."""
    fetches: list[list[Batch]]


@dataclass(frozen=True, slots=True)
class Schedule:
    batches: list[Batch]
    rounds: list[Round]
    """Each batch is in at least one fetch."""
    alive: set[str]
    """The producers whose leases last. Those of the others are over at once."""


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    all_batches = draw(batches())
    some = st.lists(st.sampled_from(all_batches), max_size=4)
    deliveries = draw(st.permutations(all_batches + draw(some) + draw(some)))
    rounds = []
    while deliveries:
        sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
        if not any(sizes):
            sizes = [len(deliveries)]
        fetches = []
        for size in sizes:
            fetches.append(deliveries[:size])
            deliveries = deliveries[size:]
        rounds.append(Round(draw(leases()), draw(some), [fetch for fetch in fetches if fetch]))
    return Schedule(all_batches, rounds, set(draw(st.lists(st.sampled_from(PRODUCERS)))))


@st.composite
def leases(draw: st.DrawFn) -> list[Lease]:
    """Reports that are late, early, repeated or missing; some tell of rates that never came into a batch."""
    reports = []
    for producer in draw(st.lists(st.sampled_from(PRODUCERS), max_size=3)):
        opened = draw(st.integers(0, 40))
        reports.append(Lease(producer, opened, draw(st.integers(0, opened))))
    return reports


def expected(all_batches: list[Batch]) -> Counter[tuple[str, int]]:
    """Each batch once and each key once, counted one rate at a time."""
    model: Counter[tuple[str, int]] = Counter()
    keys_seen: set[str] = set()
    for batch in all_batches:
        keyed: dict[int, str] = {}
        for key in batch.keys:
            first_time = key.identity not in keys_seen
            keys_seen.add(key.identity)
            keyed |= {key.first + i: "count" if first_time else "skip" for i in range(key.count)}
        for index, (subject, rate) in enumerate(batch.rates):
            if keyed.get(index) != "skip":
                model[subject, rate] += 1
    return model


class OpenedModel:
    """What each producer said and what became of its batches, in plain sets and numbers."""

    def __init__(self, alive: set[str]) -> None:
        self._alive = alive
        self._leases: list[Lease] = []
        self._settled: dict[tuple[str, int], Batch] = {}

    def add(self, round_: Round) -> None:
        self._leases += round_.leases
        for batch in chain(round_.buried, *round_.fetches):
            self._settled[batch.producer, batch.sequence] = batch

    def opened(self) -> Opened:
        still = abandoned = 0
        for producer in PRODUCERS:
            leases = [lease for lease in self._leases if lease.producer == producer]
            batches = [batch for batch in self._settled.values() if batch.producer == producer]
            settled = sum(len(batch.rates) for batch in batches)
            taken_in = max((each.opened for each in (*leases, *batches)), default=0)
            confirmed = max((lease.confirmed for lease in leases), default=0)
            expected_still = taken_in if leases and producer in self._alive else confirmed
            expected_still = max(0, expected_still - settled)
            still += expected_still
            abandoned += max(0, taken_in - settled) - expected_still
        return Opened(still, abandoned)


async def play(store: Store, schedule: Schedule) -> None:
    opened = OpenedModel(schedule.alive)
    counted = 0
    for round_ in schedule.rounds:
        for lease in round_.leases:
            with lasting(3600.0 if lease.producer in schedule.alive else 0.0):
                await store.lease([lease])
        outcomes, _ = await asyncio.gather(
            asyncio.gather(*(count(store, fetch) for fetch in round_.fetches)), store.settle(round_.buried)
        )
        counted += sum(outcome.counted_rates for outcome in outcomes)
        opened.add(round_)
        assert await store.opened() == opened.opened()
    model = expected(schedule.batches)
    assert counted == model.total()
    for subject in "xyz":
        await _same(store, subject, {rate: n for (name, rate), n in model.items() if name == subject})
    for number in range(len(KEYS)):
        await _same(store, f"k{number}", {rate: n for (name, rate), n in model.items() if name == f"k{number}"})
    assert (await store.totals()).count == model.total()
    assert (await store.totals()).sum == sum(rate * n for (_, rate), n in model.items())
    await store.close()


@contextmanager
def lasting(lease_s: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.memory.LEASE_S", lease_s)
        patch.setattr("store.redis.LEASE_S", lease_s)
        yield


async def _same(store: Store, subject: str, distribution: dict[int, int]) -> None:
    summary = await store.subject(subject)
    assert (summary.distribution if summary else {}) == distribution
    assert (summary.count if summary else 0) == sum(distribution.values())
    assert (summary.sum if summary else 0) == sum(rate * n for rate, n in distribution.items())
    assert sum(summary.minutes.values() if summary else ()) == sum(distribution.values())


def _check(make: Callable[[], Store], schedule: Schedule) -> None:
    async def run() -> None:
        await play(make(), schedule)

    asyncio.run(run())


@given(schedules())
@settings(max_examples=150, deadline=None)
def test_memory(schedule: Schedule) -> None:
    _check(lambda: MemoryStore(horizon_s=3600, idempotency_s=3600), schedule)


@given(schedules())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis(redis_server: Member, schedule: Schedule) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    _check(lambda: RedisStore(Endpoint.of(redis_server.url), horizon_s=3600, idempotency_s=3600), schedule)
