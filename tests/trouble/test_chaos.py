"""Troubles that nobody thought of: parts die, freeze and restart at random, several at a time."""

from __future__ import annotations

import asyncio
import random

import pytest

from stack.member import Member
from tests.trouble.conftest import Choose
from tests.trouble.served import ServedWorld

PATIENCE_S = 180.0
"""A part may be ready no sooner than those that it needs are, and they die too."""

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _die(member: Member, away_s: float) -> None:
    await member.kill()
    await asyncio.sleep(away_s)
    await member.start(timeout_s=PATIENCE_S)


async def _restart(member: Member, away_s: float) -> None:
    await member.stop()
    await asyncio.sleep(away_s)
    await member.start(timeout_s=PATIENCE_S)


async def _freeze(member: Member, away_s: float) -> None:
    member.freeze()
    await asyncio.sleep(away_s)
    member.thaw()


async def _crash(member: Member, away_s: float) -> None:
    await member.crash(timeout_s=PATIENCE_S)
    await asyncio.sleep(away_s)


TROUBLES = [_die, _restart, _freeze, _crash]


@pytest.mark.smoke("nats")
async def test_chaos(served: ServedWorld, choose: Choose[float]) -> None:
    chance = random.Random(1)
    members = served.members

    async def plague(member: Member, until: float, pauses: random.Random) -> None:
        while asyncio.get_running_loop().time() < until:
            await pauses.choice(TROUBLES)(member, pauses.uniform(0, 2))
            await asyncio.sleep(pauses.uniform(0.2, 3))

    async with served.load() as load:
        until = asyncio.get_running_loop().time() + choose(2, 150)
        await asyncio.gather(*(plague(member, until, random.Random(chance.random())) for member in members))
        for member in members:
            await member.wait_ready()
            load.back(member.name)
        await load.flows()
        await load.run_for(1)
        await load.stop()
        await load.settle(abandoned=True)
