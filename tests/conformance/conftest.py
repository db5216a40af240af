"""A harness for each kind of broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conformance.harness import Harness, until
from tests.conformance.server import NatsServer

KINDS = ["memory", "nats"]


@pytest.fixture(scope="session")
def shared_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests that leave it alone."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that the test may kill. It is not started."""
    server = NatsServer(tmp_path / "server")
    yield server
    server.close()


async def _used(harness: Harness) -> AsyncIterator[Harness]:
    """Every test checks, by the way, that its closed brokers leave no task behind."""
    yield harness
    await harness.close()
    with suppress(TimeoutError):
        await until(lambda: len(asyncio.all_tasks()) == 1, 2.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture(params=KINDS)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A broker of each kind, its server left alone by all."""
    server = request.getfixturevalue("shared_nats") if request.param == "nats" else None
    async for used in _used(Harness(request.param, server)):
        yield used


@pytest.fixture(params=KINDS)
async def outage(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A broker of each kind with a server of its own, running."""
    server = request.getfixturevalue("own_nats") if request.param == "nats" else None
    harness = Harness(request.param, server)
    if server is None:
        assert not harness.features.server
        pytest.skip("Features.server is false")
    server.start()
    async for used in _used(harness):
        yield used
