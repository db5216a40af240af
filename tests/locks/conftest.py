"""One locked server of each kind, for all cases in this folder; whoever changes its locks puts them back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.locks.kinds import KINDS, Kind, LockedServer


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "features(**wanted): for brokers whose Features have these values")
    config.addinivalue_line("markers", "restarts: takes a server down; without --whole only where it is soon back")


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def _server(kind: Kind) -> Iterator[LockedServer]:
    server = LockedServer(kind)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def server(request: pytest.FixtureRequest, kind: Kind, _server: LockedServer) -> LockedServer:
    if kind.slow and request.node.get_closest_marker("restarts") and not request.config.getoption("--whole"):
        pytest.skip("only with --whole: this server takes seconds to restart")
    return _server
