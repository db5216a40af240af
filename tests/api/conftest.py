"""The embedded service on a free port, and a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import uvloop

from core.lifecycle import until
from core.settings import EmbeddedSettings
from stack.embedded import EmbeddedService


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The one that services run on."""
    return {"uvloop": uvloop.new_event_loop}


StartService = Callable[..., Awaitable[EmbeddedService]]


@pytest.fixture
async def start() -> AsyncIterator[StartService]:
    """Starts embedded services with settings of their own; ends them."""
    running: list[EmbeddedService] = []

    async def start_one(**settings: Any) -> EmbeddedService:
        service = EmbeddedService(EmbeddedSettings(**{"port": 0, **settings}))
        running.append(service)
        await service.start()
        return service

    yield start_one
    for service in running:
        await service.close()


@pytest.fixture
async def client(start: StartService) -> AsyncIterator[aiohttp.ClientSession]:
    """A session at the address of an embedded service that is ready."""
    service = await start()
    async with aiohttp.ClientSession(service.url) as session:
        await ready(session)
        yield session


async def ready(session: aiohttp.ClientSession) -> None:
    """Wait until the service would confirm a rate."""
    for _ in range(200):
        async with session.get("/readyz") as response:
            if response.status == 200:
                return
        await until(lambda: False, 0.02)
    raise AssertionError("not ready in time")


async def counted(session: aiohttp.ClientSession, count: int) -> dict[str, Any]:
    """Wait until nothing is opened: then `count` rates are counted, neither fewer nor more; the totals."""
    opened: dict[str, int] = {}
    for _ in range(300):
        opened = await (await session.get("/opened")).json()
        if opened == {"opened": 0, "abandoned": 0}:
            break
        await until(lambda: False, 0.02)
    totals: dict[str, Any] = await (await session.get("/rates")).json()
    assert (totals["count"], opened) == (count, {"opened": 0, "abandoned": 0})
    return totals
