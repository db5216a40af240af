"""A world for each case, and how much of a case is run: a smoke, or with --whole all of it.

All cases of one broker share one world of real servers, one after the other: to bring one up costs seconds. It is given
to a further case only when it is as good as new. Other than a fresh world it has seen trouble before, which is harder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from core.lifecycle import until
from stack.member import PartFailed
from tests.trouble.kinds import KINDS, Kind
from tests.trouble.served import ServedWorld, served_world
from tests.trouble.world import World, memory_world

MEMORY = "memory"
SPARE_CONNECTIONS = 2
SETTLES_S = 5.0

_T = TypeVar("_T")
Choose = Callable[[_T, _T], _T]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "features(**wanted): for brokers whose Features have these values")
    config.addinivalue_line("markers", "smoke(*kinds): without --whole it is run on these brokers only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The brokers of a case: those with a server, unless it takes any world, and that keep what they confirm, unless it
    is marked otherwise; of these, those of its smoke, and those that --broker names."""
    if "kind" not in metafunc.fixturenames:
        return
    features = metafunc.definition.get_closest_marker("features")
    at_most_once = bool(features and features.kwargs.get("at_most_once"))
    kinds: dict[str, Kind | None] = {MEMORY: None} if "world" in metafunc.fixturenames else {}
    kinds |= {kind.name: kind for kind in KINDS if kind.features.at_most_once == at_most_once}
    smoke = metafunc.definition.get_closest_marker("smoke")
    whole = metafunc.config.getoption("--whole")
    named = metafunc.config.getoption("--broker") or kinds
    chosen = [name for name in kinds if name in named and (whole or smoke is None or name in smoke.args)]
    metafunc.parametrize("kind", [kinds[name] for name in chosen], indirect=True, scope="session", ids=chosen)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cases that are left with no broker are not skipped, they are not there."""
    here = Path(__file__).parent
    left_out = [item for item in items if item.path.parent == here and "NOTSET" in item.name]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest) -> Kind | None:
    """None is the broker in memory."""
    return request.param


class Keeper:
    """Keeps one world as long as it is as good as new."""

    def __init__(self, kind: Kind, folder: Callable[[], Path]) -> None:
        self._kind = kind
        self._folder = folder
        self._world: ServedWorld | None = None
        self._failure: PartFailed | None = None
        self._open = AsyncExitStack()

    async def world(self) -> ServedWorld:
        """Raises PartFailed; then at once whenever it is called again, because that takes a minute each time."""
        if self._failure is not None:
            raise self._failure
        if self._world is None or not await self._world.is_as_new():
            await self.close()
            try:
                self._world = await self._open.enter_async_context(served_world(self._kind, self._folder()))
            except PartFailed as exc:
                self._failure = exc
                raise
        return self._world

    async def close(self) -> None:
        if self._world:
            for member in self._world.stack.members:
                member.give_up()
        self._world = None
        await self._open.aclose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def keeper(kind: Kind | None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Keeper | None]:
    if kind is None:
        yield None
        return
    keeper = Keeper(kind, lambda: tmp_path_factory.mktemp(kind.name))
    yield keeper
    await keeper.close()


@pytest_asyncio.fixture(loop_scope="session")
async def served(request: pytest.FixtureRequest, kind: Kind, keeper: Keeper) -> AsyncIterator[ServedWorld]:
    """For troubles that only a broker with a server can have."""
    for mark in request.node.iter_markers("features"):
        for name, wanted in mark.kwargs.items():
            if (found := getattr(kind.features, name)) != wanted:
                pytest.skip(f"Features.{name} is {found}")
    async for world in _watched(keeper):
        yield world


@pytest_asyncio.fixture(loop_scope="session")
async def world(kind: Kind | None, keeper: Keeper | None, tmp_path: Path) -> AsyncIterator[World]:
    if keeper is None:
        async with memory_world(tmp_path) as made:
            yield made
        return
    async for made in _watched(keeper):
        yield made


async def _watched(keeper: Keeper) -> AsyncIterator[ServedWorld]:
    """Every case checks, by the way, that no connection was leaked."""
    world = await keeper.world()
    before = world.connections()
    yield world
    world.thaw()
    if world.idle():
        enough = {name: count + SPARE_CONNECTIONS for name, count in before.items()}
        assert await until(lambda: _within(world.connections(), enough), SETTLES_S), (before, world.connections())


def _within(counts: Mapping[str, int], bounds: Mapping[str, int]) -> bool:
    return all(counts[name] <= bound for name, bound in bounds.items())


@pytest.fixture
def choose(request: pytest.FixtureRequest) -> Choose[float]:
    """`choose(smoke, whole)`: how often or how long."""
    whole = request.config.getoption("--whole")
    return lambda smoke, all_of_it: all_of_it if whole else smoke
