"""Parts that are stopped and started again while clients send."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from bench.load import Report
from tests.trouble.conftest import Choose
from tests.trouble.served import ServedWorld
from tests.trouble.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


def all_answered_200(report: Report) -> None:
    assert report.failed == 0, report
    assert report.answered > 0


@pytest.mark.smoke("nats")
async def test_each_replica_restarted_in_turn(world: World, choose: Choose[int]) -> None:
    async with world.load() as load:
        for number in range(2 * choose(1, 10)):
            await world.restart_api(number % 2)
            await load.confirmed_by(world.api_url(number % 2))
            await load.run_for(0.3)
        all_answered_200(await load.stop())
        await load.settle()


@pytest.mark.smoke("memory")
async def test_each_process_restarted_in_turn(world: World, choose: Choose[int]) -> None:
    async with world.load() as load:
        for number in range(2 * choose(1, 10)):
            await world.restart_process(number % 2)
            await load.grows(f"counted by process {number % 2}", partial(world.counted_by, number % 2))
            await load.run_for(0.3)
        all_answered_200(await load.stop())
        await load.settle()


@pytest.mark.smoke("memory")
async def test_nginx_restarted(world: World, choose: Choose[int]) -> None:
    async with world.load() as load:
        for _ in range(choose(2, 10)):
            await world.nginx.stop()
            await world.nginx.start()
            load.back("nginx")
            await load.run_for(0.3)
        await load.stop()
        await load.settle()


async def test_broker_restarted(served: ServedWorld, choose: Choose[int]) -> None:
    async with served.load() as load:
        for _ in range(choose(1, 10)):
            await served.broker.stop()
            await served.broker.start()
            load.back("the broker")
            await load.flows()
            await load.run_for(choose(0, 2))
        await load.stop()
        await load.settle()


@pytest.mark.smoke
async def test_redis_restarted(served: ServedWorld, choose: Choose[int]) -> None:
    async with served.load() as load:
        for _ in range(choose(1, 10)):
            await served.redis.stop()
            await served.redis.start()
            await load.grows("counted after Redis was back", load.counted_rates)
            await load.run_for(1)
        all_answered_200(await load.stop())
        await load.settle()


@pytest.mark.smoke("nats")
async def test_everything_restarted_at_once(served: ServedWorld, choose: Choose[int]) -> None:
    """Not one after the other, and without load, as after a power cut: what was confirmed is still counted."""
    async with served.load() as load:
        await load.stop()
        members = [served.redis, served.broker, *served.apis, *served.processes]
        for _ in range(choose(1, 3)):
            await asyncio.gather(*(member.kill() for member in members))
            for member in members:
                await member.start(wait=False)
            for member in members:
                await member.wait_ready()
        await load.settle(abandoned=True)
