"""How firmly Redis must keep what it counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from core.endpoints import Endpoint
from core.errors import StoreUnavailable
from core.settings import Durability, Keeping
from stack.member import Member
from store import open_store


@pytest.fixture
def server(redis_server: Member) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client
        client.config_set("appendfsync", "always")


@pytest.mark.parametrize(
    ("durability", "appendfsync", "taken"),
    [
        ("relaxed", "always", True),
        ("relaxed", "everysec", True),
        ("relaxed", "no", False),
        ("confirmed", "always", True),
        ("confirmed", "everysec", False),
        ("fsync", "always", True),
        ("fsync", "everysec", False),
    ],
)
async def test_what_appendfsync_may_be(
    server: redis.Redis, redis_server: Member, durability: Durability, appendfsync: str, taken: bool
) -> None:
    server.config_set("appendfsync", appendfsync)
    store = open_store(Endpoint.of(redis_server.url), Keeping(), durability)
    try:
        if taken:
            await store.check()
        else:
            with pytest.raises(StoreUnavailable, match="set appendonly yes and appendfsync"):
                await store.check()
    finally:
        await store.close()
