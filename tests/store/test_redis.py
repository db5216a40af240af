"""What only Redis can do wrong: refuse half-way, forget scripts, be full, be away, be misconfigured."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
import redis

from core.batches import Batch
from core.counting import count
from core.errors import SettingsError, StoreRefused, StoreUnavailable
from core.fold import fold
from core.settings import Keeping
from stack.ports import free_port
from store import open_store
from store.redis import RedisStore


def batch(subject: str, rate: int = 1) -> Batch:
    return Batch(1, 0, uuid4().hex, 0, 1, time.time(), [(subject, rate)])


@pytest.fixture
def store(emptied: str) -> RedisStore:
    return RedisStore(emptied, horizon_s=3600, idempotency_s=3600)


@pytest.fixture
def client(emptied: str) -> redis.Redis:
    return redis.Redis.from_url(emptied, decode_responses=True)


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
    client.close()
    await store.close()


async def test_a_key_of_a_wrong_type_refuses_before_anything_is_written(store: RedisStore, client: redis.Redis) -> None:
    bad = batch("good")
    for key in ("subject:bad", f"producer:{bad.producer}", f"seen:{bad.producer}:0", f"dead:{bad.producer}:0"):
        client.flushall()
        client.sadd(f"fanrate:{{0}}:{key}", "neither a hash nor bits")
        before = dump(client)
        with pytest.raises(StoreRefused):
            await store.apply(fold([batch("good"), batch("bad"), bad]))
        assert dump(client) == before
    client.close()
    await store.close()


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
    client.close()
    await store.close()


async def test_only_the_culprit_of_a_refused_fold_is_dead(store: RedisStore, client: redis.Redis) -> None:
    client.set("fanrate:{0}:subject:bad", "not a hash")
    batches = [batch(f"good-{number}") for number in range(30)]
    culprit = batch("bad")
    outcome = await count(store, [*batches[:17], culprit, *batches[17:]])
    assert [(dead.batch, dead.reason) for dead in outcome.dead] == [(culprit, "refused")]
    assert outcome.counted_rates == 30
    assert (await store.totals()).count == 30
    client.close()
    await store.close()


async def test_forgotten_scripts_are_sent_again(store: RedisStore, client: redis.Redis) -> None:
    await store.apply(fold([batch("a")]))
    client.script_flush()
    assert (await store.apply(fold([batch("a")]))).written
    assert (await store.totals()).count == 2
    client.close()
    await store.close()


async def test_a_full_store_is_away_and_takes_the_same_fold_later(store: RedisStore, client: redis.Redis) -> None:
    whole = fold([batch("a")])
    client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable):
        await store.apply(whole)
    assert client.keys() == []
    client.config_set("maxmemory", 0)
    assert (await store.apply(whole)).written
    client.close()
    await store.close()


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
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
    client.close()
    await store.close()


async def test_chunks_and_producers_are_forgotten_one_horizon_after_their_newest_batch(
    store: RedisStore, client: redis.Redis
) -> None:
    ahead = Batch(1, 0, "a" * 32, 0, 1, time.time() + 100, [("a", 1)])
    await store.apply(fold([ahead]))
    await store.apply(fold([Batch(1, 0, "a" * 32, 1, 2, time.time() - 100, [("a", 1)])]))
    for key in ("fanrate:{0}:seen:" + "a" * 32 + ":0", "fanrate:{0}:producer:" + "a" * 32):
        assert 3695 < client.ttl(key) <= 3700
    client.close()
    await store.close()


async def test_a_store_that_is_not_there() -> None:
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0", horizon_s=1, idempotency_s=1)
    await store.start()
    for call in (store.check, store.totals, store.opened):
        with pytest.raises(StoreUnavailable):
            await call()
    await store.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379", "", "redis://127.0.0.1:port/0"])
def test_a_wrong_address_is_a_setting_error(url: str) -> None:
    with pytest.raises(SettingsError, match="STORE_URL"):
        open_store(url, Keeping())
