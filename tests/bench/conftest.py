"""Real servers that behave as a test tells them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from bench.client import Address
from core.settings import EmbeddedSettings
from stack.embedded import EmbeddedService
from tests.bench.servers import Server

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[Address]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves a handler on a free port until the end of the test."""
    runners: list[web.ServerRunner] = []

    async def start(handler: Handler) -> Address:
        runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return Address("127.0.0.1", runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def server(serve: Serve) -> Server:
    server = Server()
    server.address = await serve(server.handle)
    return server


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Of the embedded service."""
    service = EmbeddedService(EmbeddedSettings(port=0))
    await service.start()
    yield service.url
    await service.drain(5)
    await service.close()
