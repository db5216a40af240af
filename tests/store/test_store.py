"""The suite that certifies a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import pytest

from core.batches import Batch, Key
from core.counting import count
from core.fold import fold
from core.store import Lease, Opened, Ranked, Store, Summary

MakeStore = Callable[..., Store]

SOON_S = 10.0


def batch(
    rates: list[tuple[str, int]],
    *,
    producer: str | None = None,
    sequence: int = 0,
    age_s: float = 0.0,
    keys: list[Key] | None = None,
    opened: int | None = None,
) -> Batch:
    return Batch(
        version=1,
        shard=0,
        producer=producer or uuid4().hex,
        sequence=sequence,
        opened=len(rates) if opened is None else opened,
        at=time.time() - age_s,
        rates=rates,
        keys=keys or [],
    )


def this_minute() -> int:
    return int(time.time() // 60)


async def test_nothing_counted(make_store: MakeStore) -> None:
    store = make_store()
    await store.check()
    assert await store.totals() == Summary()
    assert await store.subject("film") is None
    assert await store.subjects("", 10) == []
    assert await store.top(10, "count") == []
    assert await store.opened() == Opened(0, 0)
    await store.close()


async def test_counts_of_all_kinds(make_store: MakeStore) -> None:
    store = make_store()
    before = this_minute()
    first = batch([("film-1", 60), ("film-2", -3), ("film-1", 60), ("film-1", 100)])
    assert (await store.apply(fold([first]))).written
    assert (await store.apply(fold([batch([("film-1", 10)], age_s=120)]))).written
    film = await store.subject("film-1")
    assert film is not None
    assert (film.count, film.sum, film.distribution) == (4, 230, {10: 1, 60: 2, 100: 1})
    assert list(film.distribution) == [10, 60, 100]
    assert sum(film.minutes.values()) == 4
    assert set(film.minutes) <= {before - 2, before - 1, before, before + 1}
    assert len(film.minutes) == 2
    totals = await store.totals()
    assert (totals.count, totals.sum, totals.distribution) == (5, 227, {-3: 1, 10: 1, 60: 2, 100: 1})
    await store.close()


async def test_lists_of_subjects(make_store: MakeStore) -> None:
    store = make_store()
    await store.apply(fold([batch([("b", 1), ("a", 5), ("b", 2), ("C", 9), ("d", 9)])]))
    everything = [Ranked("C", 1, 9.0), Ranked("a", 1, 5.0), Ranked("b", 2, 1.5), Ranked("d", 1, 9.0)]
    assert await store.subjects("", 10) == everything
    assert await store.subjects("", 2) == everything[:2]
    assert await store.subjects("C", 2) == everything[1:3]
    assert await store.subjects("aa", 10) == everything[2:]
    assert await store.top(2, "count") == [Ranked("b", 2, 1.5), Ranked("d", 1, 9.0)]
    assert await store.top(3, "mean") == [Ranked("d", 1, 9.0), Ranked("C", 1, 9.0), Ranked("a", 1, 5.0)]
    await store.close()


async def test_a_known_batch_keeps_the_whole_fold_out(make_store: MakeStore) -> None:
    store = make_store()
    first, second = batch([("a", 1)]), batch([("a", 2)])
    await store.apply(fold([first]))
    answer = await store.apply(fold([second, first]))
    assert answer.known == {(first.producer, 0)}
    assert not answer.written
    assert (await store.totals()).count == 1
    await store.close()


async def test_sequences_of_one_producer_are_told_apart_across_chunks(make_store: MakeStore) -> None:
    store = make_store()
    producer = uuid4().hex
    sequences = [0, 1, 7, 8, 65_535, 65_536, 131_072]
    for sequence in sequences:
        assert (await store.apply(fold([batch([("a", 1)], producer=producer, sequence=sequence)]))).written
    for sequence in sequences:
        assert not (await store.apply(fold([batch([("a", 1)], producer=producer, sequence=sequence)]))).written
    assert (await store.totals()).count == len(sequences)
    await store.close()


async def test_a_known_key_keeps_the_fold_out_until_it_is_left_out(make_store: MakeStore) -> None:
    store = make_store()
    identity = "a" * 32
    await store.apply(fold([batch([("a", 1)], keys=[Key(identity, 0, 1)])]))
    again = batch([("a", 1), ("b", 2)], keys=[Key(identity, 0, 1)])
    answer = await store.apply(fold([again]))
    assert answer.known_keys == {identity}
    assert (await store.apply(fold([again], frozenset({identity})))).written
    totals = await store.totals()
    assert (totals.count, totals.distribution) == (2, {1: 1, 2: 1})
    await store.close()


async def test_a_key_is_forgotten_after_its_time(make_store: MakeStore) -> None:
    store = make_store(idempotency_s=0.3)
    first, second = (batch([("a", 1)], keys=[Key("a" * 32, 0, 1)]) for _ in range(2))
    began = time.monotonic()
    assert (await store.apply(fold([first]))).written
    async with asyncio.timeout(SOON_S):
        while not (await store.apply(fold([second]))).written:
            await asyncio.sleep(0.01)
    assert time.monotonic() - began >= 0.29
    await store.close()


async def test_what_is_older_than_the_horizon_is_not_counted(make_store: MakeStore) -> None:
    store = make_store(horizon_s=60)
    late, old = batch([("a", 1)], age_s=30), batch([("a", 1)], age_s=90)
    answer = await store.apply(fold([old, late]))
    assert answer.expired == {(old.producer, 0)}
    assert (await store.totals()).count == 0
    assert (await store.apply(fold([late]))).written
    await store.close()


async def test_known_is_tested_before_expired(make_store: MakeStore) -> None:
    store = make_store(horizon_s=60)
    nearly = batch([("a", 1)], age_s=57.5)
    assert (await store.apply(fold([nearly]))).written
    await asyncio.sleep(2.6)
    answer = await store.apply(fold([nearly]))
    assert (answer.known, answer.expired) == ({(nearly.producer, 0)}, frozenset())
    await store.close()


async def test_counting_drops_what_is_known_and_names_what_is_dead(make_store: MakeStore) -> None:
    store = make_store(horizon_s=60)
    known, fresh, old = batch([("a", 1)]), batch([("a", 2), ("b", 2)]), batch([("a", 3)], age_s=100)
    await count(store, [known])
    outcome = await count(store, [old, fresh, known, fresh])
    assert outcome.counted_rates == 2
    assert outcome.repeated_rates == 3
    assert [(dead.batch, dead.reason) for dead in outcome.dead] == [(old, "expired")]
    assert outcome.calls == 2
    assert (await store.totals()).distribution == {1: 1, 2: 2}
    await store.close()


async def test_two_consumers_with_the_same_fetch_count_it_once(make_store: MakeStore) -> None:
    store = make_store()
    batches = [batch([("a", number), ("b", number)]) for number in range(50)]
    outcomes = await asyncio.gather(*(count(store, batches[start:]) for start in (0, 20, 40, 0)))
    assert sum(outcome.counted_rates for outcome in outcomes) == 100
    assert (await store.totals()).count == 100
    await store.close()


async def test_opened_follows_a_producer(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store()
    producer = uuid4().hex
    _let_leases_last(monkeypatch, 3600.0)
    await store.lease([Lease(producer, opened=5, confirmed=3)])
    assert await store.opened() == Opened(5, 0)
    await store.apply(fold([batch([("a", 1), ("a", 2)], producer=producer, opened=2)]))
    assert await store.opened() == Opened(3, 0)
    await store.lease([Lease(producer, opened=4, confirmed=1)])
    assert await store.opened() == Opened(3, 0), "totals never go down"
    _let_leases_last(monkeypatch, 0.3)
    await store.lease([Lease(producer, opened=4, confirmed=1)])
    await asyncio.sleep(0.4)
    assert await store.opened() == Opened(1, 2), "confirmed is still to come, the rest is abandoned"
    await store.apply(fold([batch([("a", 1)], producer=producer, sequence=1, opened=3)]))
    assert await store.opened() == Opened(0, 2)
    await store.apply(fold([batch([("a", 1)] * 2, producer=producer, sequence=2, opened=5)]))
    assert await store.opened() == Opened(0, 0), "it was published after all"
    await store.close()


def _let_leases_last(monkeypatch: pytest.MonkeyPatch, lease_s: float) -> None:
    for module in ("memory", "redis"):
        monkeypatch.setattr(f"store.{module}.LEASE_S", lease_s)


async def test_opened_of_a_producer_that_never_reported(make_store: MakeStore) -> None:
    store = make_store()
    await store.apply(fold([batch([("a", 1)], opened=4)]))
    assert await store.opened() == Opened(0, 3)
    await store.close()


async def test_dead_letters_settle_once_whatever_comes_later(make_store: MakeStore) -> None:
    store = make_store()
    producer = uuid4().hex
    dead = batch([("a", 1), ("a", 2)], producer=producer)
    await store.lease([Lease(producer, opened=2, confirmed=2)])
    await store.settle([dead])
    await store.settle([dead])
    assert await store.opened() == Opened(0, 0)
    assert (await store.totals()).count == 0
    assert (await store.apply(fold([dead]))).written, "a redriven batch is counted"
    await store.lease([Lease(producer, opened=3, confirmed=3)])
    assert await store.opened() == Opened(1, 0), "and settles nothing more"
    await store.settle([dead])
    assert await store.opened() == Opened(1, 0), "what was counted is settled"
    await store.close()


async def test_minutes_of_the_future_are_now_and_those_of_long_ago_are_left_out(make_store: MakeStore) -> None:
    store = make_store(horizon_s=7200)
    await store.apply(
        fold([batch([("a", 1)], age_s=-600), batch([("a", 1)], age_s=3700), batch([("a", 1)], age_s=900)])
    )
    summary = await store.subject("a")
    assert summary is not None
    assert summary.count == 3
    assert len(summary.minutes) == 2
    assert max(summary.minutes) <= this_minute()
    await store.close()


@pytest.mark.parametrize("rate", [10**9, -(10**9)])
async def test_the_largest_rates_stay_exact(make_store: MakeStore, rate: int) -> None:
    store = make_store()
    await store.apply(fold([batch([("a", rate)] * 10_000)]))
    await store.apply(fold([batch([("a", 1)])]))
    summary = await store.subject("a")
    assert summary is not None
    assert summary.sum == rate * 10_000 + 1
    await store.close()


async def test_a_fold_of_ten_thousand_subjects(make_store: MakeStore) -> None:
    store = make_store()
    rates = [(f"film-{number}", number % 101) for number in range(10_000)]
    assert (await store.apply(fold([batch(rates)]))).written
    assert (await store.totals()).count == 10_000
    assert len(await store.subjects("", 20_000)) == 10_000
    await store.close()


async def test_close_twice(make_store: MakeStore) -> None:
    store = make_store()
    await store.start()
    await store.start()
    await store.close()
    await store.close()
