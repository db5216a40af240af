"""Both stores: in memory, and on a real Redis that is emptied for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
import redis

from core.endpoints import Endpoint
from core.lifecycle import until
from core.store import Store
from stack import parts
from stack.member import Member
from stack.supervisor import Stack
from store.memory import MemoryStore
from store.redis import RedisStore
from tests.servers import needs

MakeStore = Callable[..., Store]


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def redis_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Member]:
    needs("redis-server")
    directory: Path = tmp_path_factory.mktemp("store")
    async with Stack(directory) as stack:
        yield await stack.start(parts.redis(directory))


@pytest.fixture
def emptied(redis_server: Member) -> str:
    """The address of a Redis that holds nothing."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return redis_server.url


@pytest.fixture(params=["memory", "redis"])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    """Makes stores, all of them on the same data if they are on Redis."""
    if request.param == "memory":
        return lambda *, horizon_s=3600.0, idempotency_s=3600.0: MemoryStore(
            horizon_s=horizon_s, idempotency_s=idempotency_s
        )
    url = request.getfixturevalue("emptied")
    return lambda *, horizon_s=3600.0, idempotency_s=3600.0: RedisStore(
        Endpoint.of(url), horizon_s=horizon_s, idempotency_s=idempotency_s
    )


@asynccontextmanager
async def frozen(server: Member) -> AsyncIterator[None]:
    """The signal alone may take a while to stop it."""
    server.freeze()
    try:
        assert await until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED, 10)
        yield
    finally:
        server.thaw()
