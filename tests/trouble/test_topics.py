"""A topic that is full, and one that is deleted."""

from __future__ import annotations

import asyncio
import time

import pytest

from bench.client import Connection
from brokers.base import Broker, Subscription
from core.batches import decode
from core.counting import GROUP
from core.errors import BrokerError
from core.store import LEASE_S
from tests.trouble.conftest import Choose
from tests.trouble.load import CONNECTIONS, NO_MORE_S, Load
from tests.trouble.served import ServedWorld

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL_BYTES = 64 * 1024
FULL_S = 30.0
GROUP_BACK_S = 3.0
GETS_S = 10.0


@pytest.mark.features(refuses_when_full=True)
async def test_consumers_away_until_the_topic_is_full(served: ServedWorld, choose: Choose[int]) -> None:
    """Refused with the reason, nothing dropped, and going on when they return."""
    async with served.services("full", topic_bytes=SMALL_BYTES) as services, services.load() as load:
        for _ in range(choose(1, 5)):
            await services.process.stop()
            await _until_full(load)
            await services.process.start()
            load.back("the consumer")
            await load.flows()
            await load.grows("counted", services.counted)
        report = await load.stop()
        assert set(report.statuses) == {200, 503}
        await load.settle()


async def test_topic_deleted_under_load(served: ServedWorld, choose: Choose[bool]) -> None:
    """What was confirmed and unread is lost: exactly that, and `/opened` goes on telling so. The topic is made anew,
    and all that is confirmed from then on is counted."""
    async with served.services("deleted") as services, services.load() as load:
        await services.process.stop()
        await load.run_for(0.5)
        least = await load.waiting()
        await services.delete_topic()
        most = await load.waiting() + CONNECTIONS
        load.back("the topic")
        await load.flows()
        await services.process.start()
        await load.grows("counted after the topic was made anew", services.counted)
        assert set((await load.stop()).statuses) <= {200, 503}

        verdict = await load.verdict(NO_MORE_S)
        assert verdict.dup == 0
        assert 0 < least <= verdict.loss <= most
        assert (await load.opened()).opened == verdict.loss
        if choose(False, True):
            await services.api.kill()
            await asyncio.sleep(LEASE_S)
            await services.api.start()
            assert (await load.opened()).opened == verdict.loss


@pytest.mark.smoke
async def test_topic_deleted_under_a_consumer(served: ServedWorld, choose: Choose[int]) -> None:
    """It goes on with the topic that is made anew; what it had not read is told."""
    async with served.services("deleted") as services, services.load() as load:
        for _ in range(choose(1, 5)):
            await services.delete_topic()
            load.back("the topic")
            await load.flows()
            await load.grows("counted after the topic was made anew", services.counted, served.kind.counts_again_s)
        assert set((await load.stop()).statuses) <= {200, 503}
        verdict = await load.verdict(NO_MORE_S)
        assert verdict.dup == 0
        opened = (await load.opened()).opened
        assert verdict.loss <= opened <= verdict.loss + load.ledger.unknown_rates


@pytest.mark.smoke("nats")
async def test_group_deleted_under_load(served: ServedWorld, choose: Choose[int]) -> None:
    """One of two, while its members are away: it is made anew, and has what is confirmed from then on. The other lacks
    nothing."""
    delete_group = served.kind.delete_group
    if delete_group is None:
        pytest.skip("no group without members")
    groups = [GROUP, "audit"]
    async with (
        served.services("group", groups=groups) as services,
        served.adapter() as adapter,
        services.load() as load,
    ):
        for _ in range(choose(1, 5)):
            await delete_group(served.broker.url, services.topic, "audit")
            load.back("the group")
            member = await _member(adapter, services.topic, "audit")
            await _has_what_is_new(member)
            await member.close()
        await load.stop()
        await load.settle()


async def _member(broker: Broker, topic: str, group: str) -> Subscription:
    """Of a group that comes back."""
    async with asyncio.timeout(GROUP_BACK_S):
        while True:
            try:
                return await broker.subscribe(topic, group)
            except BrokerError:
                await asyncio.sleep(0.05)


async def _has_what_is_new(member: Subscription) -> None:
    since = time.time()
    async with asyncio.timeout(GETS_S):
        newest = 0.0
        while newest <= since:
            messages = await member.fetch(2048, 2**22, 1.0)
            newest = max((decode(message.body).at for message in messages), default=newest)
            await member.acknowledge(messages)


async def _until_full(load: Load) -> None:
    """The load goes on until the replica says that the broker is full, in the answer to a request and of itself."""
    connection = Connection(load.address)
    try:
        async with asyncio.timeout(FULL_S):
            while b"the broker is full" not in (await connection.get("/readyz")).body:
                await load.run_for(0.05)
        assert await load.refused_with() == "broker-full"
    finally:
        connection.close()
