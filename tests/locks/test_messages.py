"""Messages move through TLS as they do without: a part of the suite that certifies brokers, on servers behind locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from brokers.base import Broker
from brokers.conformance import harness as suite
from brokers.conformance.messages import (  # noqa: F401  # the cases
    test_a_cancelled_fetch_loses_nothing,
    test_a_waiting_fetch_ends_with_the_first_message,
    test_close_ends_all_that_is_under_way,
    test_members_of_a_group_share,
    test_round_trip,
    test_the_largest_message_and_one_byte_more,
)
from core.endpoints import Endpoint
from core.lifecycle import until
from tests.conformance import kinds as conformance
from tests.locks.kinds import KAFKA, NATS, NATS_CORE, RABBIT, REDIS, Kind, LockedServer

CERTIFIED = {
    NATS: conformance.NATS,
    NATS_CORE: conformance.NATS_CORE,
    REDIS: conformance.REDIS,
    RABBIT: conformance.RABBIT,
    KAFKA: conformance.KAFKA,
}

pytestmark = pytest.mark.parametrize(
    "kind", list(CERTIFIED), ids=[kind.name for kind in CERTIFIED], scope="session", indirect=True
)


@pytest.fixture
async def harness(kind: Kind, server: LockedServer) -> AsyncIterator[suite.Harness]:
    """Its brokers come in by the way of this server, and leave no task behind."""
    certified = CERTIFIED[kind]

    def make(_: Endpoint, *, name: str, redeliver_after_s: float, max_topic_bytes: int) -> Broker:
        return certified.make_broker(
            server.endpoint(), name=name, redeliver_after_s=redeliver_after_s, max_topic_bytes=max_topic_bytes
        )

    made = suite.Harness(suite.Kind(kind.name, make), server)
    yield made
    await made.close()
    assert await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 10.0)
