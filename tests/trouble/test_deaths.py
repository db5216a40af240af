"""Parts that are killed, frozen or not there while clients send."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from core.store import LEASE_S
from stack import parts
from stack.supervisor import Stack
from tests.servers import needs
from tests.trouble.conftest import Choose
from tests.trouble.load import load_on
from tests.trouble.world import NatsWorld, World

LEASE_INTERVAL_S = 0.5
"""How far behind /opened may be."""


async def test_broker_away_at_the_start(tmp_path: Path, choose: Choose[float]) -> None:
    """Services start, are alive and not ready, and become ready by themselves."""
    needs("redis-server", "nats-server")
    async with Stack(tmp_path) as stack:
        redis = await stack.start(parts.redis(tmp_path))
        nats = await stack.start(parts.nats(tmp_path))
        await nats.kill()
        urls = {"broker_url": nats.url, "store_url": redis.url}
        api = await stack.start(parts.api(tmp_path, **urls), wait=False)
        process = await stack.start(parts.process(tmp_path, **urls), wait=False)
        await asyncio.sleep(choose(1, 10))
        assert api.running
        assert process.running
        assert not api.ready
        assert not process.ready
        await nats.start()
        await api.wait_ready(5)
        await process.wait_ready(5)
        async with load_on(api.url) as load:
            assert (await load.stop()).failed == 0
            await load.settle()
        assert (api.starts, process.starts) == (1, 1)


async def test_broker_killed(nats: NatsWorld, choose: Choose[float]) -> None:
    async with load_on(nats.nginx.url) as load:
        for away_s in (0, 2, 8)[: choose(2, 3)]:
            await nats.parts.nats.kill()
            await load.run_for(away_s)
            await nats.parts.nats.start()
            load.back("the broker")
            await load.run_for(3)
        report = await load.stop()
        assert set(report.statuses) <= {200, 503}
        assert report.broken == report.silent == 0
        await load.settle()


async def test_broker_frozen(nats: NatsWorld, choose: Choose[float]) -> None:
    async with load_on(nats.nginx.url) as load:
        nats.parts.nats.freeze()
        await load.run_for(choose(7, 20))
        nats.parts.nats.thaw()
        load.back("the broker")
        await load.run_for(3)
        report = await load.stop()
        assert set(report.statuses) == {200, 503}
        assert report.broken == report.silent == 0
        await load.settle()


async def test_redis_killed(nats: NatsWorld, choose: Choose[float]) -> None:
    """POSTs go on, counting catches up."""
    async with load_on(nats.nginx.url) as load:
        for away_s in (1, 5, 20)[: choose(1, 3)]:
            await nats.parts.redis.kill()
            await load.run_for(away_s)
            await nats.parts.redis.start()
            await load.grows("counted after Redis was back", load.counted_rates)
            await load.run_for(1)
        assert (await load.stop()).failed == 0
        await load.settle()


async def test_redis_frozen(nats: NatsWorld, choose: Choose[float]) -> None:
    async with load_on(nats.nginx.url) as load:
        nats.parts.redis.freeze()
        await load.run_for(choose(6, 20))
        nats.parts.redis.thaw()
        await load.grows("counted after Redis was back", load.counted_rates)
        await load.run_for(1)
        assert (await load.stop()).failed == 0
        await load.settle()


async def test_processes_killed(nats: NatsWorld, choose: Choose[int]) -> None:
    async with load_on(nats.nginx.url) as load:
        for number in range(choose(2, 10)):
            process = nats.parts.processes[number % 2]
            await process.kill()
            await load.run_for(0.3)
            await process.start()
            await load.grows(f"counted by {process.name}", partial(nats.counted_by, number % 2))
        assert (await load.stop()).failed == 0
        await load.settle()


async def test_replicas_killed(nats: NatsWorld, choose: Choose[int]) -> None:
    async with load_on(nats.nginx.url) as load:
        for number in range(choose(2, 10)):
            api = nats.parts.apis[number % 2]
            await api.kill()
            await load.run_for(0.5)
            await api.start()
            await load.confirmed_by(api.url)
            await load.run_for(0.5)
        await load.stop()
        await load.settle(abandoned=True)


async def test_nginx_killed(world: World, choose: Choose[int]) -> None:
    async with load_on(world.nginx.url) as load:
        for _ in range(choose(1, 5)):
            await world.nginx.crash()
            load.back("nginx")
            await load.run_for(0.5)
        await load.stop()
        await load.settle()


async def test_consumers_stopped(world: World, choose: Choose[float]) -> None:
    """Everything confirmed stays opened, is told of to within a lease interval, and is counted in the end."""
    async with load_on(world.nginx.url) as load:
        await world.stop_processes()
        await load.run_for(choose(3, 60))
        assert (await load.stop()).failed == 0
        counted = (await load.reader.totals()).count
        waiting = load.ledger.confirmed_rates - counted
        assert waiting > 0
        await asyncio.sleep(LEASE_INTERVAL_S)
        opened = await load.opened()
        assert (opened.opened, opened.abandoned) == (waiting, 0)
        await world.start_processes()
        await load.settle()


async def test_consumers_stopped_and_the_replica_gone(world: World) -> None:
    """What a replica took in and had confirmed stays opened when the replica is gone."""
    async with load_on(world.nginx.url) as load:
        await world.stop_processes()
        await load.run_for(1)
        assert (await load.stop()).failed == 0
        await asyncio.sleep(LEASE_INTERVAL_S)
        waiting = load.ledger.confirmed_rates - (await load.reader.totals()).count
        await world.remove_api(0)
        for wait_s in (0, LEASE_S + LEASE_INTERVAL_S):
            await asyncio.sleep(wait_s)
            opened = await load.opened()
            assert (opened.opened, opened.abandoned) == (waiting, 0)
        await world.start_processes()
        await load.settle()


async def test_consumers_stopped_and_a_replica_gone_under_load(world: World) -> None:
    """What was confirmed is accounted for, but for what the replica confirmed after it last reported."""
    async with load_on(world.nginx.url) as load:
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
            assert opened.opened + opened.abandoned <= load.ledger.sent_rates - counted
        await world.start_processes()
        await load.settle(abandoned=True)
