"""A fresh world for each case, and how much of a case is run: a smoke, or with --whole all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.trouble.world import NatsWorld, World, memory_world, nats_world

_T = TypeVar("_T")
Choose = Callable[[_T, _T], _T]


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with memory_world(tmp_path) if request.param == "memory" else nats_world(tmp_path) as made:
        yield made


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsWorld]:
    """For troubles that only a broker with a server can have."""
    async with nats_world(tmp_path) as made:
        yield made


@pytest.fixture
def choose(request: pytest.FixtureRequest) -> Choose[float]:
    """`choose(smoke, whole)`: how often or how long."""
    whole = request.config.getoption("--whole")
    return lambda smoke, all_of_it: all_of_it if whole else smoke
