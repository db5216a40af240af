"""Consumers that come and go, die with messages in their hands, or are silent for longer than the broker waits."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.trouble.conftest import Choose
from tests.trouble.served import ServedWorld, metric_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_consumers_added_and_removed(served: ServedWorld, choose: Choose[int]) -> None:
    """Rebalance under load; every second one that is removed does not say so."""
    async with served.load() as load, served.further_process() as further:
        for number in range(choose(2, 10)):
            await further.start()
            await load.grows("counted by the one added", partial(metric_of, further, "counted_rates"))
            await (further.kill() if number % 2 else further.stop())
            await load.run_for(0.3)
        for number in range(2):
            await load.grows(f"counted by process {number}", partial(served.counted_by, number))
        assert (await load.stop()).failed == 0
        await load.settle()


async def test_consumers_that_hold_messages_die_and_freeze(served: ServedWorld, choose: Choose[int]) -> None:
    """One dies again and again, so that messages come again as often and are not dropped for it; the other is frozen
    until the broker gave what it held to others, then is back with what it thinks it holds."""
    frozen, dying = served.processes
    async with served.load() as load:
        async with served.holding(frozen):
            frozen.freeze()
        frozen_until = asyncio.get_running_loop().time() + served.kind.silent_s
        for _ in range(choose(3, 20)):
            async with served.holding(dying):
                await dying.kill()
            await dying.start()
        assert (await load.stop()).failed == 0
        await asyncio.sleep(frozen_until - asyncio.get_running_loop().time())
        verdict = await load.verdict()
        assert verdict.clean, [str(verdict), *verdict.lines()]
        frozen.thaw()
        load.start()
        for number in range(2):
            await load.grows(f"counted by process {number}", partial(served.counted_by, number))
        assert (await load.stop()).failed == 0
        await load.settle()
