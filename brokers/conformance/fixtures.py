"""The fixtures of the cases: a broker whose server is left alone by all, and one whose server the case may kill.

Whoever takes them over defines `kind`, a fixture of session scope that returns a `Kind`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from brokers.base import Features
from brokers.conformance.harness import Harness, Kind, Server, until

__all__ = ["harness", "outage", "own_server", "pytest_configure", "shared_server"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "features(**wanted): left out for a broker whose Features differ from these")


@pytest.fixture(scope="session")
def shared_server(kind: Kind) -> Iterator[Server | None]:
    """One server for all cases that leave it alone."""
    if kind.make_server is None:
        yield None
        return
    server = kind.make_server(False)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def own_server(kind: Kind) -> Iterator[Server | None]:
    """One server for all cases that kill it."""
    if kind.make_server is None:
        yield None
        return
    server = kind.make_server(True)
    yield server
    server.close()


@pytest.fixture
async def harness(request: pytest.FixtureRequest, kind: Kind, shared_server: Server | None) -> AsyncIterator[Harness]:
    harness = Harness(kind, shared_server)
    _skip_unless_required(request, harness.features)
    async for used in _used(harness):
        yield used


@pytest.fixture
async def outage(request: pytest.FixtureRequest, kind: Kind, own_server: Server | None) -> AsyncIterator[Harness]:
    """With a server that runs, and that the case may leave in any state."""
    harness = Harness(kind, own_server)
    if own_server is None:
        assert not harness.features.server
        pytest.skip("Features.server is False")
    _skip_unless_required(request, harness.features)
    own_server.start()
    async for used in _used(harness):
        yield used
    own_server.thaw()


async def _used(harness: Harness) -> AsyncIterator[Harness]:
    """Every case checks, by the way, that its closed brokers leave no task behind."""
    yield harness
    await harness.close()
    with suppress(TimeoutError):
        await until(lambda: len(asyncio.all_tasks()) == 1, 10.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def _skip_unless_required(request: pytest.FixtureRequest, features: Features) -> None:
    for mark in request.node.iter_markers("features"):
        for name, wanted in mark.kwargs.items():
            if (found := getattr(features, name)) != wanted:
                pytest.skip(f"Features.{name} is {found}")
