"""A primary and a replica, whose roles change: where it is counted, and what is settled when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from core.batches import Batch
from core.counting import count
from core.endpoints import Access, Endpoint
from core.errors import StoreRefused, StoreUnavailable
from core.fold import fold
from core.lifecycle import until
from core.store import Lease
from stack.clusters import redis_nodes, replicated
from stack.member import Member
from stack.supervisor import Stack
from store.redis import RedisStore
from tests.servers import needs
from tests.store.conftest import frozen

SOON_S = 10.0


def batch(subject: str = "film") -> Batch:
    return Batch(1, 0, uuid4().hex, 0, 1, time.time(), [(subject, 1)])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers, the first of which begins as the primary."""

    first: Member
    second: Member

    @property
    def url(self) -> str:
        return f"redis://{self.first.address},{self.second.address}/0"

    def store(self, replicas: int, url: str = "") -> RedisStore:
        endpoint = Endpoint.of(url or self.url, Access("STORE"))
        return RedisStore(endpoint, horizon_s=3600, idempotency_s=3600, replicas=replicas)

    async def follow(self, replica: Member, primary: Member) -> None:
        """Make one the replica of the other; returns once it is in sync."""
        ask(primary, "REPLICAOF", "NO", "ONE")
        ask(replica, "REPLICAOF", "127.0.0.1", str(primary.port))
        await self.synced(primary)

    async def synced(self, primary: Member) -> None:
        """A replica that still writes its first append-only file does not end when it is told to."""
        assert await until(lambda: _has_replica(primary) and not any(map(_rewrites, (self.first, self.second))), SOON_S)


def _has_replica(primary: Member) -> bool:
    return bool(ask(primary, "INFO", "replication").get("slave0", {}).get("state") == "online")


def _rewrites(server: Member) -> bool:
    return bool(ask(server, "INFO", "persistence")["aof_rewrite_in_progress"])


def ask(server: Member, *command: str) -> Any:
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return client.execute_command(*command)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    needs("redis-server")
    async with Stack(tmp_path) as stack:
        first, second, _ = replicated(redis_nodes(tmp_path)).nodes
        made = Pair(await stack.start(first, supervised=False), await stack.start(second, supervised=False))
        await made.synced(made.first)
        yield made


@pytest.fixture
async def store(pair: Pair) -> AsyncIterator[RedisStore]:
    """One that wants a replica to have all."""
    made = pair.store(replicas=1)
    yield made
    await made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.redis_primary.WAIT_S", 0.2)


async def test_the_primary_counts_wherever_it_stands_in_the_url(pair: Pair) -> None:
    for url in (pair.url, f"redis://{pair.second.address},{pair.first.address}/0"):
        store = pair.store(1, url)
        await store.check()
        assert (await count(store, [batch()])).counted_rates == 1
        await store.close()
    assert ask(pair.first, "HGET", "fanrate:{0}:subject:film", "count") == "2"


async def test_what_was_counted_is_with_the_replica(pair: Pair, store: RedisStore) -> None:
    for number in range(1, 21):
        await store.apply(fold([batch()]))
        assert ask(pair.second, "HGET", "fanrate:{0}:subject:film", "count") == str(number)


async def test_what_is_not_with_a_replica_is_not_settled(pair: Pair, store: RedisStore, impatient: None) -> None:
    """Not counted, not known and not settled: each is told only once the replica has it."""
    given, dead = batch(), batch()
    async with frozen(pair.second):
        for call in (store.apply(fold([given])), store.apply(fold([given])), store.settle([dead])):
            with pytest.raises(StoreUnavailable, match="with 0 of 1 replicas"):
                await call
        await store.lease([Lease(given.producer, 1, 1)])
    assert await _count_all(store, [given]) == 1
    await store.settle([dead])
    assert (await store.totals()).count == 1


async def test_without_replicas_asked_for_none_is_waited_for(pair: Pair) -> None:
    store = pair.store(replicas=0)
    async with frozen(pair.second):
        assert (await store.apply(fold([batch()]))).written
    assert not ask(pair.first, "EXISTS", "fanrate:{0}:barrier")
    await store.close()


async def test_too_few_replicas_are_told_before_they_are_missed(pair: Pair, store: RedisStore) -> None:
    await store.check()
    await pair.second.kill()
    assert await until(lambda: not _has_replica(pair.first), SOON_S)
    with pytest.raises(StoreUnavailable, match="Redis has 0 of the 1 replicas that STORE_REPLICAS asks for"):
        await store.check()


async def test_a_promoted_replica_is_found(pair: Pair) -> None:
    """What was settled is known to it, for the replica had it."""
    before, wanting_one = batch(), pair.store(replicas=1)
    await wanting_one.apply(fold([before]))
    await wanting_one.close()
    store = pair.store(replicas=0)
    await store.check()
    await pair.first.kill()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.apply(fold([batch()]))
    with pytest.raises(StoreUnavailable) as told:
        await store.check()
    assert f"{pair.first.address} cannot be asked" in str(told.value)
    assert f"{pair.second.address} is a replica" in str(told.value)
    ask(pair.second, "REPLICAOF", "NO", "ONE")
    assert (await count(store, [before])).repeated_rates == 1
    assert (await count(store, [batch()])).counted_rates == 1
    await store.close()


async def test_tls_asked_of_plain_servers_is_told_of_each(pair: Pair) -> None:
    store = pair.store(0, f"redis+tls://{pair.first.address},{pair.second.address}/0")
    with pytest.raises(StoreUnavailable) as told:
        await store.check()
    for member in (pair.first, pair.second):
        assert f"{member.address} does not answer to TLS, for which STORE_URL asks" in str(told.value)
    await store.close()


async def test_a_replica_that_hangs_holds_up_checks_and_not_counting(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.redis_primary.ROLE_S", 3.0)
    store = pair.store(replicas=0)
    await store.check()
    await store.apply(fold([batch()]))
    async with frozen(pair.second):
        checking = asyncio.create_task(store.check())
        await asyncio.sleep(0.1)
        await asyncio.wait_for(store.apply(fold([batch()])), SOON_S)
        assert not checking.done()
        await asyncio.wait_for(checking, SOON_S)
    await store.close()


async def test_two_primaries_are_refused_and_both_named(pair: Pair, store: RedisStore) -> None:
    await store.check()
    ask(pair.second, "REPLICAOF", "NO", "ONE")
    for call in (store.check, store.totals, lambda: store.apply(fold([batch()]))):
        with pytest.raises(StoreUnavailable, match="both say that they are the primary") as told:
            await call()
        assert pair.first.address in str(told.value)
        assert pair.second.address in str(told.value)
    await pair.follow(pair.second, pair.first)
    await store.check()
    assert (await store.apply(fold([batch()]))).written


async def test_roles_swapped_under_way_count_once(pair: Pair, store: RedisStore) -> None:
    """The primary steps down with connections open, which it goes on serving, read only."""
    given = [batch() for _ in range(40)]
    counting = asyncio.create_task(_count_all(store, given))
    for replica, primary in ((pair.first, pair.second), (pair.second, pair.first)):
        await asyncio.sleep(0.1)
        await pair.follow(replica, primary)
    assert await counting == len(given)
    assert (await store.totals()).count == len(given)


async def _count_all(store: RedisStore, given: list[Batch]) -> int:
    """Each until it is told; how many were told to be counted, or known."""
    told = 0
    for each in given:
        deadline = time.monotonic() + SOON_S
        while True:
            try:
                outcome = await count(store, [each])
            except StoreUnavailable:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            else:
                told += outcome.counted_rates + outcome.repeated_rates
                break
        await asyncio.sleep(0.005)
    return told


async def test_a_primary_that_stepped_down_is_left_at_the_first_write(pair: Pair, store: RedisStore) -> None:
    await store.apply(fold([batch()]))
    await pair.follow(pair.first, pair.second)
    with pytest.raises(StoreUnavailable, match="read only replica"):
        await store.apply(fold([batch()]))
    assert (await store.apply(fold([batch()]))).written


async def test_a_primary_that_hangs_is_left_for_the_next(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.redis_connection.ANSWER_TIMEOUT_S", 0.5)
    store = pair.store(replicas=0)
    await store.apply(fold([batch()]))
    async with frozen(pair.first):
        ask(pair.second, "REPLICAOF", "NO", "ONE")
        with pytest.raises(StoreUnavailable):
            await store.apply(fold([batch()]))
        assert (await store.apply(fold([batch()]))).written
    await store.close()


async def test_forgotten_scripts_are_sent_again_with_what_waits_behind_them(pair: Pair, store: RedisStore) -> None:
    await store.apply(fold([batch()]))
    ask(pair.first, "SCRIPT", "FLUSH")
    assert (await store.apply(fold([batch()]))).written
    assert (await store.totals()).count == 2


async def test_a_refusal_is_one_with_replicas_too(pair: Pair, store: RedisStore) -> None:
    ask(pair.first, "SET", "fanrate:{0}:subject:bad", "not a hash")
    with pytest.raises(StoreRefused):
        await store.apply(fold([batch("bad")]))


async def test_a_damaged_barrier_is_no_refusal(pair: Pair, store: RedisStore) -> None:
    """It makes no batch a culprit."""
    ask(pair.first, "SET", "fanrate:{0}:barrier", "not a number")
    with pytest.raises(StoreUnavailable, match="cannot be told"):
        await store.apply(fold([batch()]))
