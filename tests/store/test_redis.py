"""What only Redis can do wrong: refuse half-way, forget scripts, be full, be away, be misconfigured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from core.batches import Batch
from core.counting import count
from core.endpoints import Access, Endpoint
from core.errors import SettingsError, StoreRefused, StoreUnavailable
from core.fold import fold
from core.settings import Keeping
from core.store import Lease, Opened
from stack import parts
from stack.member import Member
from stack.ports import free_port
from stack.supervisor import Stack
from store import open_store
from store.redis import RedisStore
from tests.store.conftest import frozen


def batch(subject: str, rate: int = 1) -> Batch:
    return Batch(1, 0, uuid4().hex, 0, 1, time.time(), [(subject, rate)])


@pytest.fixture
async def store(emptied: str) -> AsyncIterator[RedisStore]:
    made = RedisStore(Endpoint.of(emptied), horizon_s=3600, idempotency_s=3600)
    yield made
    await made.close()


@pytest.fixture
def client(emptied: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(emptied, decode_responses=True) as made:
        yield made


def dump(client: redis.Redis) -> dict[str, bytes]:
    raw = redis.Redis.from_url(f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0")
    with raw:
        return {key.decode(): raw.dump(key) for key in raw.scan_iter("*")}


SHARED = {
    "producers": ("fanrate:{0}:producers", "not a set"),
    "names": ("fanrate:{0}:names", "not a set"),
    "by_count": ("fanrate:{0}:by_count", "not a set"),
    "by_mean": ("fanrate:{0}:by_mean", "not a set"),
    "all subjects": ("fanrate:{0}:subject:*", "not a hash"),
}


@pytest.mark.parametrize("key", SHARED)
async def test_a_damaged_key_that_all_share_makes_no_batch_a_culprit(
    store: RedisStore, client: redis.Redis, key: str
) -> None:
    client.set(*SHARED[key])
    before = dump(client)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.apply(fold([batch("good")]))
    assert dump(client) == before


async def test_a_key_of_a_wrong_type_refuses_before_anything_is_written(store: RedisStore, client: redis.Redis) -> None:
    bad = batch("good")
    for key in ("subject:bad", f"producer:{bad.producer}", f"seen:{bad.producer}:0", f"dead:{bad.producer}:0"):
        client.flushall()
        client.sadd(f"fanrate:{{0}}:{key}", "neither a hash nor bits")
        before = dump(client)
        with pytest.raises(StoreRefused):
            await store.apply(fold([batch("good"), batch("bad"), bad]))
        assert dump(client) == before


@pytest.mark.parametrize("field", ["count", "sum", "1"])
@pytest.mark.parametrize("value", ["many", "1.5", "99999999999999999999", ""])
async def test_a_field_that_is_no_number_refuses_before_anything_is_written(
    store: RedisStore, client: redis.Redis, field: str, value: str
) -> None:
    await store.apply(fold([batch("bad")]))
    client.hset("fanrate:{0}:subject:bad", field, value)
    before = dump(client)
    with pytest.raises(StoreRefused):
        await store.apply(fold([batch("good"), batch("bad")]))
    assert dump(client) == before


async def test_only_the_culprit_of_a_refused_fold_is_dead(store: RedisStore, client: redis.Redis) -> None:
    client.set("fanrate:{0}:subject:bad", "not a hash")
    batches = [batch(f"good-{number}") for number in range(30)]
    culprit = batch("bad")
    outcome = await count(store, [*batches[:17], culprit, *batches[17:]])
    assert [(dead.batch, dead.reason) for dead in outcome.dead] == [(culprit, "refused")]
    assert outcome.counted_rates == 30
    assert (await store.totals()).count == 30


async def test_forgotten_scripts_are_sent_again(store: RedisStore, client: redis.Redis) -> None:
    await store.apply(fold([batch("a")]))
    client.script_flush()
    assert (await store.apply(fold([batch("a")]))).written
    assert (await store.totals()).count == 2


@contextmanager
def full(server: Member, client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextmanager
def read_only(server: Member, client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", str(free_port()))
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextmanager
def unable_to_save(server: Member, client: redis.Redis) -> Iterator[None]:
    """Redis takes no writes once a snapshot has failed. A folder is where the snapshot should be."""
    (in_the_way := server.part.folders[0] / "dump.rdb" / "folder").mkdir(parents=True)
    client.config_set("save", "3600 1")
    client.bgsave()
    _wait(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    try:
        yield
    finally:
        client.config_set("save", "")
        in_the_way.rmdir()
        in_the_way.parent.rmdir()


@contextmanager
def busy(server: Member, client: redis.Redis) -> Iterator[None]:
    """Another client's script takes long."""
    client.config_set("busy-reply-threshold", 20)
    with ThreadPoolExecutor() as pool, redis.Redis.from_url(server.url) as other:
        script = pool.submit(client.eval, "for i = 1, 1e10 do end", 0)
        _wait(lambda: _is_busy(other))
        try:
            yield
        finally:
            other.script_kill()
            with pytest.raises(redis.ResponseError, match="killed"):
                script.result(5)


def _is_busy(client: redis.Redis) -> bool:
    try:
        return not client.ping()
    except redis.ResponseError as exc:
        return str(exc).startswith("BUSY")


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(250):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("did not come to be in time")


NOT_NOW = {"maxmemory": full, "read only replica": read_only, "MISCONF": unable_to_save, "BUSY": busy}


@pytest.mark.parametrize("answer", NOT_NOW)
async def test_a_store_that_is_unwilling_for_now_takes_the_same_later(
    store: RedisStore, client: redis.Redis, redis_server: Member, answer: str
) -> None:
    known, fresh, dead = batch("known"), batch("fresh"), batch("dead")
    await store.apply(fold([known]))
    before = dump(client)
    with NOT_NOW[answer](redis_server, client):
        for write in (
            store.apply(fold([fresh])),
            store.apply(fold([batch("known"), fresh])),
            store.settle([dead]),
            store.lease([Lease(dead.producer, 1, 1)]),
        ):
            with pytest.raises(StoreUnavailable, match=answer):
                await write
    assert dump(client) == before, "nothing was written"
    assert (await store.apply(fold([fresh]))).written
    await store.lease([Lease(dead.producer, 1, 1)])
    await store.settle([dead])
    assert await store.opened() == Opened(0, 0)
    assert (await store.totals()).count == 2


async def test_a_store_that_does_not_answer_in_time_counts_once(
    store: RedisStore, emptied: str, redis_server: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.redis_connection.ANSWER_TIMEOUT_S", 0.2)
    impatient = RedisStore(Endpoint.of(emptied), horizon_s=3600, idempotency_s=3600)
    await store.apply(fold([batch("a")]))
    with suppress(StoreUnavailable):  # it has a connection then, on which the fold is sent
        await impatient.totals()
    given = batch("a")
    async with frozen(redis_server):
        for call in (
            impatient.apply(fold([given])),
            impatient.settle([batch("b")]),
            impatient.totals(),
            impatient.check(),
        ):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await call
            assert 0.2 <= time.monotonic() - began < 4
    await impatient.close()
    await count(store, [given])
    await count(store, [given])
    assert (await store.totals()).count == 2


async def test_a_store_that_still_loads_is_away(tmp_path: Path) -> None:
    part = parts.redis(tmp_path)
    slow = ["--key-load-delay", "20"]
    async with Stack(tmp_path) as stack:
        first = await stack.start(part)
        with redis.Redis.from_url(first.url) as client, client.pipeline(transaction=False) as pipeline:
            for number in range(20_000):
                pipeline.incr(f"number-{number}")
            pipeline.execute()
        await first.stop()
        second = await stack.start(replace(part, argv=[*part.argv, *slow]), wait=False)
        store = RedisStore(Endpoint.of(second.url), horizon_s=3600, idempotency_s=3600)
        said = set()
        while not second.ready:
            try:
                await store.apply(fold([batch("a")]))
            except StoreUnavailable as exc:
                said.add(str(exc))
            await asyncio.sleep(0.02)
        assert any("loading" in each for each in said), said
        assert (await store.apply(fold([batch("b")]))).written
        await store.close()


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ],
)
async def test_a_store_that_may_forget_is_not_ready(
    store: RedisStore, client: redis.Redis, setting: str, value: str, right: str
) -> None:
    await store.check()
    client.config_set(setting, value)
    try:
        with pytest.raises(StoreUnavailable, match=setting):
            await store.check()
    finally:
        client.config_set(setting, right)
    await store.check()
    _wait(lambda: not client.info("persistence")["aof_rewrite_in_progress"])


async def test_chunks_and_producers_are_forgotten_one_horizon_after_their_newest_batch(
    store: RedisStore, client: redis.Redis
) -> None:
    ahead = Batch(1, 0, "a" * 32, 0, 1, time.time() + 100, [("a", 1)])
    await store.apply(fold([ahead]))
    await store.apply(fold([Batch(1, 0, "a" * 32, 1, 2, time.time() - 100, [("a", 1)])]))
    for key in ("fanrate:{0}:seen:" + "a" * 32 + ":0", "fanrate:{0}:producer:" + "a" * 32):
        assert 3695 < client.ttl(key) <= 3700


async def test_a_store_that_is_not_there() -> None:
    store = RedisStore(Endpoint.of(f"redis://127.0.0.1:{free_port()}/0"), horizon_s=1, idempotency_s=1)
    await store.start()
    for call in (store.check, store.totals, store.opened):
        with pytest.raises(StoreUnavailable):
            await call()
    await store.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379", "", "redis://127.0.0.1:port/0"])
def test_a_wrong_address_is_a_setting_error(url: str) -> None:
    with pytest.raises(SettingsError, match="STORE_URL"):
        open_store(Endpoint.of(url, Access("STORE")), Keeping())
