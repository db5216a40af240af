"""A broker that is told to lose: what it lost is told to the last rate, and nothing hangs or counts twice."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from core.lifecycle import Deadline
from core.store import LEASE_S
from tests.trouble.conftest import Choose
from tests.trouble.load import NO_MORE_S, Load
from tests.trouble.served import ServedWorld

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOLD_S = 5.0 + LEASE_S + 5.0
"""How soon what never arrived is told as abandoned: a producer's lifetime, its last lease, and some seconds."""


@pytest.mark.features(at_most_once=True)
async def test_lost_without_consumers(served: ServedWorld, choose: Choose[float]) -> None:
    async with served.load() as load:
        await served.stop_processes()
        await load.run_for(choose(1, 20))
        await served.start_processes()
        for number in range(2):
            await load.grows(f"counted by process {number}", partial(served.counted_by, number))
        assert (await load.stop()).failed == 0
        assert await _told(load) > 0


@pytest.mark.features(at_most_once=True)
async def test_lost_with_the_broker(served: ServedWorld, choose: Choose[int]) -> None:
    async with served.load() as load:
        for number in range(choose(1, 10)):
            await served.broker.kill()
            await load.run_for(number % 3)
            await served.broker.start()
            load.back("the broker")
            await load.flows()
            for number in range(2):
                await load.grows(f"counted by process {number}", partial(served.counted_by, number))
        assert set((await load.stop()).statuses) <= {200, 503}
        await _told(load)


async def _told(load: Load) -> int:
    """The loss by the ledger, which `/opened` must tell too, as abandoned; beside what was not answered 200."""
    verdict = await load.verdict(NO_MORE_S)
    assert verdict.dup == 0
    deadline = Deadline(TOLD_S)
    while (opened := await load.opened()).opened:
        assert deadline.left_s, opened
        await asyncio.sleep(0.1)
    abandoned = opened.abandoned - load.before.opened - load.before.abandoned
    assert verdict.loss <= abandoned <= verdict.loss + load.ledger.unknown_rates
    return verdict.loss
