"""A member whose connection is lost joins again inside a fetch, however little time that one has."""

from __future__ import annotations

import asyncio

import pytest

from brokers.base import Message
from brokers.conformance.harness import SOON_S, Harness, fresh, persistently
from core.errors import BrokerUnavailable
from tests.conformance.kinds import NATS, NATS_CORE, RABBIT, REDIS

pytestmark = pytest.mark.parametrize(
    "kind", [NATS, NATS_CORE, REDIS, RABBIT], ids=lambda kind: kind.name, scope="session", indirect=True
)


async def test_fetches_shorter_than_joining_again_still_find_messages(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await outage.restart(broker)
    messages: list[Message] = []
    async with asyncio.timeout(SOON_S):
        while not messages:
            await persistently(lambda: broker.publish(topic, b"after", SOON_S))
            messages = await reader.fetch(1, 2**20, 0.0)
    assert messages[0].body == b"after"


async def test_joining_again_at_a_frozen_server_ends(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await outage.restart(broker)
    outage.server.freeze()
    async with asyncio.timeout(7.0):
        with pytest.raises(BrokerUnavailable):
            await reader.fetch(1, 2**20, 0.0)
