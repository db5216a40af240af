"""docs/wire.md holds: its example lines are what is sent, its fields those of the code, its keys those in Redis."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import redis.asyncio

from core.batches import VERSION, Batch, Key, decode, encode
from core.endpoints import Endpoint
from core.errors import StoreUnavailable
from core.fold import fold
from core.letters import DeadLetter, unearth
from core.rates import identity
from core.store import Lease
from stack.clusters import redis_nodes, replicated
from stack.supervisor import Stack
from store.redis import RedisStore
from tests.docs.pages import page, table
from tests.servers import needs


def _examples() -> list[str]:
    return re.findall(r"^```json\n(.*)\n```$", page("wire.md"), re.MULTILINE)


def test_the_batch_shown_is_one() -> None:
    line = _examples()[0].encode()
    assert encode(decode(line)) == line


def test_the_dead_letter_shown_is_one() -> None:
    letter = unearth(_examples()[1].encode())
    assert msgspec.json.encode(letter).decode() == _examples()[1]
    assert len(letter.body()) == letter.length_bytes


def test_the_fields_are_those_of_the_code() -> None:
    assert [row[0] for row in table(page("wire.md"), "The batch")] == list(Batch.__struct_fields__)
    assert [row[0] for row in table(page("wire.md"), "The dead letter")] == list(DeadLetter.__struct_fields__)


def test_a_keys_identity_is_as_described() -> None:
    rates = [["film-42", 80]]
    text = json.dumps(["", "/rate", "k1", rates], separators=(",", ":"))
    described = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert identity("", "/rate", "k1", [("film-42", 80)]) == described


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    needs("redis-server")
    async with Stack(tmp_path) as stack:
        primary, replica, _ = replicated(redis_nodes(tmp_path)).nodes
        url = (await stack.start(primary)).url
        await stack.start(replica)
        yield url


async def until_checked(store: RedisStore) -> bool:
    """Whether the replica was there within ten seconds."""
    for _ in range(200):
        with suppress(StoreUnavailable):
            await store.check()
            return True
        await asyncio.sleep(0.05)
    return False


async def test_the_keys_are_those_in_redis(redis_url: str) -> None:
    store = RedisStore(Endpoint.of(redis_url), horizon_s=60, idempotency_s=60, replicas=1)
    assert await until_checked(store)
    counted, buried = _batch(0, keys=[Key("e" * 32, 0, 1)]), _batch(1)
    await store.lease([Lease(counted.producer, 2, 2)])
    assert (await store.apply(fold([counted]))).written
    await store.settle([buried])
    await store.close()
    documented = {_pattern(row[0]): row[3] for row in table(page("wire.md"), "Keys in Redis")}
    seen = set()
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        async for key in client.scan_iter():
            (pattern,) = [pattern for pattern in documented if re.fullmatch(pattern, key)]
            assert (await client.ttl(key) == -1) == (documented[pattern] == "never"), key
            seen.add(pattern)
    assert seen == set(documented)


def _batch(sequence: int, keys: list[Key] | None = None) -> Batch:
    at = 2**32 + 0.5
    return Batch(VERSION, 0, "a" * 32, sequence, sequence + 1, at, [("film-42", 80)], keys or [])


def _pattern(documented: str) -> str:
    return re.sub(r"<[a-z]+>", ".+", re.escape(documented))
