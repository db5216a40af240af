"""Exactly once, held against a plain model: whatever is repeated, reordered, split over consumers or keyed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.batches import Batch, Key
from core.counting import count
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


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Batch], list[list[list[Batch]]]]:
    """The batches, and rounds of fetches that take place at the same time; each batch is in at least one fetch."""
    all_batches = draw(batches())
    deliveries = draw(st.permutations(all_batches + draw(st.lists(st.sampled_from(all_batches), max_size=8))))
    rounds = []
    while deliveries:
        fetches = []
        for _ in range(draw(st.integers(1, 3))):
            size = draw(st.integers(0, 4))
            fetches.append(list(deliveries[:size]))
            deliveries = deliveries[size:]
        rounds.append([fetch for fetch in fetches if fetch])
        if not any(rounds[-1]):
            rounds.append([list(deliveries)])
            break
    return all_batches, rounds


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


async def play(store: Store, all_batches: list[Batch], rounds: list[list[list[Batch]]]) -> None:
    totals = {batch.producer: batch.opened for batch in all_batches}
    await store.lease([Lease(producer, opened, opened) for producer, opened in totals.items()])
    counted = 0
    for fetches in rounds:
        outcomes = await asyncio.gather(*(count(store, fetch) for fetch in fetches))
        counted += sum(outcome.counted_rates for outcome in outcomes)
    model = expected(all_batches)
    assert counted == model.total()
    for subject in "xyz":
        await _same(store, subject, {rate: n for (name, rate), n in model.items() if name == subject})
    for number in range(len(KEYS)):
        await _same(store, f"k{number}", {rate: n for (name, rate), n in model.items() if name == f"k{number}"})
    assert (await store.totals()).count == model.total()
    assert (await store.totals()).sum == sum(rate * n for (_, rate), n in model.items())
    assert await store.opened() == Opened(0, 0)
    await store.close()


async def _same(store: Store, subject: str, distribution: dict[int, int]) -> None:
    summary = await store.subject(subject)
    assert (summary.distribution if summary else {}) == distribution
    assert (summary.count if summary else 0) == sum(distribution.values())
    assert (summary.sum if summary else 0) == sum(rate * n for rate, n in distribution.items())
    assert sum(summary.minutes.values() if summary else ()) == sum(distribution.values())


def _check(make: Callable[[], Store], schedule: tuple[list[Batch], list[list[list[Batch]]]]) -> None:
    async def run() -> None:
        await play(make(), *schedule)

    asyncio.run(run())


@given(schedules())
@settings(max_examples=150, deadline=None)
def test_memory(schedule: tuple[list[Batch], list[list[list[Batch]]]]) -> None:
    _check(lambda: MemoryStore(horizon_s=3600, idempotency_s=3600), schedule)


@given(schedules())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis(redis_server: Member, schedule: tuple[list[Batch], list[list[list[Batch]]]]) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    _check(lambda: RedisStore(redis_server.url, horizon_s=3600, idempotency_s=3600), schedule)
