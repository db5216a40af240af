"""Parts that are stopped and started again while clients send."""

from __future__ import annotations

import asyncio
from functools import partial

from bench.load import Report
from tests.trouble.conftest import Choose
from tests.trouble.load import load_on
from tests.trouble.world import NatsWorld, World


def all_answered_200(report: Report) -> None:
    assert report.failed == 0, report
    assert report.answered > 0


async def test_each_replica_restarted_in_turn(world: World, choose: Choose[int]) -> None:
    async with load_on(world.nginx.url) as load:
        for number in range(2 * choose(1, 10)):
            await world.restart_api(number % 2)
            await load.confirmed_by(world.api_url(number % 2))
            await load.run_for(0.3)
        all_answered_200(await load.stop())
        await load.settle()


async def test_each_process_restarted_in_turn(world: World, choose: Choose[int]) -> None:
    async with load_on(world.nginx.url) as load:
        for number in range(2 * choose(1, 10)):
            await world.restart_process(number % 2)
            await load.grows(f"counted by process {number % 2}", partial(world.counted_by, number % 2))
            await load.run_for(0.3)
        all_answered_200(await load.stop())
        await load.settle()


async def test_nginx_restarted(world: World, choose: Choose[int]) -> None:
    async with load_on(world.nginx.url) as load:
        for _ in range(choose(2, 10)):
            await world.nginx.stop()
            await world.nginx.start()
            load.back("nginx")
            await load.run_for(0.3)
        await load.stop()
        await load.settle()


async def test_broker_restarted(nats: NatsWorld, choose: Choose[int]) -> None:
    async with load_on(nats.nginx.url) as load:
        for _ in range(choose(1, 10)):
            await nats.parts.nats.stop()
            await nats.parts.nats.start()
            load.back("the broker")
            await load.run_for(choose(2, 3))
        await load.stop()
        await load.settle()


async def test_redis_restarted(nats: NatsWorld, choose: Choose[int]) -> None:
    async with load_on(nats.nginx.url) as load:
        for _ in range(choose(1, 10)):
            await nats.parts.redis.stop()
            await nats.parts.redis.start()
            await load.grows("counted after Redis was back", load.counted_rates)
            await load.run_for(1)
        all_answered_200(await load.stop())
        await load.settle()


async def test_everything_restarted_at_once(nats: NatsWorld, choose: Choose[int]) -> None:
    """Not one after the other, and without load, as after a power cut: what was confirmed is still counted."""
    async with load_on(nats.nginx.url) as load:
        await load.stop()
        members = [nats.parts.redis, nats.parts.nats, *nats.parts.apis, *nats.parts.processes]
        for _ in range(choose(1, 3)):
            await asyncio.gather(*(member.kill() for member in members))
            for member in members:
                await member.start(wait=False)
            for member in members:
                await member.wait_ready()
        await load.settle(abandoned=True)
