"""A replica whose store is away: rates go on, what is read does not, and it says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from api.service import ApiService
from brokers.memory import MemoryBroker
from core import counting
from core.endpoints import Endpoint
from core.settings import EmbeddedSettings
from stack.ports import free_port
from store.redis import RedisStore
from tests.api.conftest import ready


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    made = MemoryBroker()
    yield made
    await made.close()


@pytest.fixture
async def store_port() -> int:
    """Where nothing listens."""
    return free_port()


@pytest.fixture
async def client(broker: MemoryBroker, store_port: int) -> AsyncIterator[aiohttp.ClientSession]:
    store = RedisStore(Endpoint.of(f"redis://127.0.0.1:{store_port}/0"), horizon_s=60, idempotency_s=60)
    service = ApiService(broker, store, EmbeddedSettings(port=0), topic="rates")
    await service.start()
    async with aiohttp.ClientSession(service.url) as session:
        await ready(session)
        yield session
    await service.close()
    await store.close()


async def test_rates_are_confirmed_and_kept_by_the_broker(client: aiohttp.ClientSession, broker: MemoryBroker) -> None:
    for rate in range(5):
        async with client.post(f"/rate?rate={rate}", headers={"Idempotency-Key": f"{rate}"}) as response:
            assert response.status == 200
    assert broker.unread("rates", counting.GROUP) == 5


@pytest.mark.parametrize("path", ["/rates", "/rates/film", "/subjects", "/top", "/top?by=mean", "/opened"])
async def test_what_is_read_is_503(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        document = await response.json(content_type="application/problem+json")
        assert (response.status, document["type"]) == (503, "urn:fanrate:problem:store-away")
        assert int(response.headers["Retry-After"]) >= 1
    assert (await client.post("/rate?rate=5")).status == 200


async def test_it_is_ready_and_names_the_store(client: aiohttp.ClientSession, store_port: int) -> None:
    async with client.get("/readyz") as response:
        assert response.status == 200
        checks = (await response.json())["checks"]
    assert checks["publishing"] == "ok"
    assert str(store_port) in checks["store"]
