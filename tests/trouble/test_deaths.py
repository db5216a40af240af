"""Parts that are killed, frozen or not there while clients send."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from core.store import LEASE_S, Opened
from tests.trouble.conftest import Choose
from tests.trouble.served import ServedWorld
from tests.trouble.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE_INTERVAL_S = 0.5
"""How far behind /opened may be."""


@pytest.mark.smoke("nats")
async def test_broker_away_at_the_start(served: ServedWorld, choose: Choose[float]) -> None:
    """Services start, are alive and not ready, and become ready by themselves."""
    services = [*served.apis, *served.processes]
    await asyncio.gather(*(service.stop() for service in services))
    await served.broker.kill()
    starts = [service.starts for service in services]
    for service in services:
        await service.start(wait=False)
    await asyncio.sleep(choose(1, 10))
    assert all(service.running for service in services)
    assert not any(service.ready for service in services)
    await served.broker.start()
    for service in services:
        await service.wait_ready(served.kind.flows_again_s)
    async with served.load() as load:
        assert (await load.stop()).failed == 0
        await load.settle()
    assert [service.starts for service in services] == [before + 1 for before in starts]


async def test_broker_killed(served: ServedWorld, choose: Choose[float]) -> None:
    async with served.load() as load:
        for away_s in (0.5, 0, 8)[: choose(1, 3)]:
            await served.broker.kill()
            await load.run_for(away_s)
            await served.broker.start()
            load.back("the broker")
            await load.flows()
            await load.run_for(choose(0.5, 3))
        report = await load.stop()
        assert set(report.statuses) <= {200, 503}
        assert report.broken == report.silent == 0
        await load.settle()


async def test_broker_frozen(served: ServedWorld, choose: Choose[float]) -> None:
    async with served.load() as load:
        served.broker.freeze()
        await load.run_for(choose(3, 20))
        served.broker.thaw()
        load.back("the broker")
        await load.flows()
        await load.run_for(choose(0.5, 3))
        report = await load.stop()
        assert set(report.statuses) == {200, 503}
        assert report.broken == report.silent == 0
        await load.settle()


@pytest.mark.smoke("nats")
async def test_redis_killed(served: ServedWorld, choose: Choose[float]) -> None:
    """POSTs go on, counting catches up."""
    async with served.load() as load:
        for away_s in (1, 5, 20)[: choose(1, 3)]:
            await served.redis.kill()
            await load.run_for(away_s)
            await served.redis.start()
            await load.grows("counted after Redis was back", load.counted_rates)
            await load.run_for(1)
        assert (await load.stop()).failed == 0
        await load.settle()


@pytest.mark.smoke
async def test_redis_frozen(served: ServedWorld, choose: Choose[float]) -> None:
    async with served.load() as load:
        served.redis.freeze()
        await load.run_for(choose(6, 25))
        served.redis.thaw()
        await load.grows("counted after Redis was back", load.counted_rates)
        await load.run_for(1)
        assert (await load.stop()).failed == 0
        await load.settle()


@pytest.mark.smoke
async def test_processes_killed(served: ServedWorld, choose: Choose[int]) -> None:
    async with served.load() as load:
        for number in range(choose(2, 10)):
            process = served.processes[number % 2]
            await process.kill()
            await load.run_for(0.3)
            await process.start()
            await load.grows(f"counted by {process.name}", partial(served.counted_by, number % 2))
        assert (await load.stop()).failed == 0
        await load.settle()


@pytest.mark.smoke("nats")
async def test_replicas_killed(served: ServedWorld, choose: Choose[int]) -> None:
    async with served.load() as load:
        for number in range(choose(2, 10)):
            api = served.apis[number % 2]
            await api.kill()
            await load.run_for(0.5)
            await api.start()
            await load.confirmed_by(api.url)
            await load.run_for(0.5)
        await load.stop()
        await load.settle(abandoned=True)


@pytest.mark.smoke("memory")
async def test_nginx_killed(world: World, choose: Choose[int]) -> None:
    async with world.load() as load:
        for _ in range(choose(1, 5)):
            await world.nginx.crash()
            load.back("nginx")
            await load.run_for(0.5)
        await load.stop()
        await load.settle()


@pytest.mark.smoke("memory")
async def test_consumers_stopped(world: World, choose: Choose[float]) -> None:
    """Everything confirmed stays opened, is told of to within a lease interval, and is counted in the end."""
    async with world.load() as load:
        await world.stop_processes()
        await load.run_for(choose(3, 60))
        assert (await load.stop()).failed == 0
        waiting = await load.waiting()
        assert waiting > 0
        await asyncio.sleep(LEASE_INTERVAL_S)
        assert await load.opened() == Opened(waiting, load.before.abandoned)
        await world.start_processes()
        await load.settle()


@pytest.mark.smoke
async def test_consumers_stopped_and_the_replica_gone(world: World) -> None:
    """What a replica took in and had confirmed stays opened when the replica is gone."""
    async with world.load() as load:
        await world.stop_processes()
        await load.run_for(1)
        assert (await load.stop()).failed == 0
        await asyncio.sleep(LEASE_INTERVAL_S)
        waiting = await load.waiting()
        await world.remove_api(0)
        for wait_s in (0, LEASE_S + LEASE_INTERVAL_S):
            await asyncio.sleep(wait_s)
            assert await load.opened() == Opened(waiting, load.before.abandoned)
        await world.return_api(0)
        await world.start_processes()
        await load.settle()


@pytest.mark.smoke("nats")
async def test_consumers_stopped_and_a_replica_gone_under_load(world: World) -> None:
    """What was confirmed is accounted for, but for what the replica confirmed after it last reported."""
    async with world.load() as load:
        await world.stop_processes()
        await load.run_for(1)
        gone_at = time.monotonic()
        await world.remove_api(0)
        await load.run_for(0.5)
        report = await load.stop()
        counted = await load.counted_rates()
        waiting = load.ledger.confirmed_rates - counted
        forgotten = sum(gone_at - world.forgets_s < at <= gone_at for at in report.confirmed_at)
        assert waiting > forgotten, "there is something to remember"
        for wait_s in (LEASE_INTERVAL_S, LEASE_S + LEASE_INTERVAL_S):
            await asyncio.sleep(wait_s)
            opened = await load.opened()
            assert opened.opened >= waiting - forgotten
            abandoned = opened.abandoned - load.before.abandoned
            assert opened.opened + abandoned <= load.ledger.sent_rates - counted
        await world.return_api(0)
        await world.start_processes()
        await load.settle(abandoned=True)
