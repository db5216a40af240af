"""One locked server of each kind, for all cases in this folder; whoever changes its locks puts them back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.locks.kinds import KINDS, Kind, LockedServer

HERE = Path(__file__).parent


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "features(**wanted): for brokers whose Features have these values")
    config.addinivalue_line("markers", "restarts: takes a server down; without --whole only where it is soon back")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is left out is not skipped, it is not there."""
    left_out = [item for item in items if item.path.parent == HERE and not _wanted(config, item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _wanted(config: pytest.Config, item: pytest.Item) -> bool:
    calls = getattr(item, "callspec", None)
    kind = calls.params.get("kind") if calls else None
    if kind is None:
        return True
    named = config.getoption("--broker")
    soon = config.getoption("--whole") or not kind.slow or item.get_closest_marker("restarts") is None
    return soon and (not named or kind.name in named)


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def server(kind: Kind) -> Iterator[LockedServer]:
    server = LockedServer(kind)
    try:
        server.start()
        yield server
    finally:
        server.close()
