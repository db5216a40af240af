"""Real servers: HTTP ones that behave as a test tells them, and brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import cast
from uuid import uuid4

import pytest
from aiohttp import web

from bench.client import Address
from bench.holdings import GROUP
from brokers import open_broker
from brokers.base import Broker
from brokers.conformance.harness import Kind
from core.endpoints import Endpoint
from core.settings import EmbeddedSettings
from stack.embedded import EmbeddedService
from tests.bench.servers import Server
from tests.conformance.kinds import KAFKA, NATS, RABBIT, REDIS
from tests.conformance.server import StackServer

SOON_S = 10.0

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


@pytest.fixture(scope="session", params=[NATS, KAFKA, RABBIT, REDIS], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def broker_server(kind: Kind) -> Iterator[StackServer]:
    assert kind.make_server is not None
    server = cast(StackServer, kind.make_server(False))
    server.start()
    yield server
    server.close()


@pytest.fixture
async def port(kind: Kind, broker_server: StackServer) -> AsyncIterator[Broker]:
    """Our own adapter."""
    broker = open_broker(Endpoint.of(broker_server.url), name="tests")
    await broker.start()
    async with asyncio.timeout(SOON_S):
        while not broker.connected:
            await asyncio.sleep(0.01)
    yield broker
    await broker.close()


@pytest.fixture
async def topic(port: Broker) -> str:
    topic = f"t{uuid4().hex}"
    await port.ensure(topic, [GROUP])
    return topic
