"""How often a process fetches while messages trickle in."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from statistics import median
from uuid import uuid4

import pytest

from brokers.base import Message
from brokers.memory import MemoryBroker, MemorySubscription
from core import counting
from core.batches import Batch, encode
from core.fold import Fold
from core.lifecycle import until
from core.store import Applied
from process.consumer import Consumer
from process.reader import TURN_S
from store.memory import MemoryStore

MESSAGES = 300


class Broker(MemoryBroker):
    """Notes when each fetch came back with something."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched_at: list[float] = []

    async def subscribe(self, topic: str, group: str) -> MemorySubscription:
        subscription = await super().subscribe(topic, group)
        fetch = subscription.fetch

        async def noted(max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
            messages = await fetch(max_messages, max_bytes, timeout_s)
            if messages:
                self.fetched_at.append(time.monotonic())
            return messages

        subscription.fetch = noted  # type: ignore[method-assign]
        return subscription


class Store(MemoryStore):
    """Takes its time, as a disk does."""

    def __init__(self, apply_s: float) -> None:
        super().__init__(horizon_s=60, idempotency_s=60)
        self._apply_s = apply_s

    async def apply(self, fold: Fold) -> Applied:
        await asyncio.sleep(self._apply_s)
        return await super().apply(fold)


@pytest.mark.parametrize("apply_s", [0.0, 0.75 * TURN_S])
async def test_a_trickle_is_fetched_once_a_turn_of_which_settling_is_a_part(apply_s: float) -> None:
    """Not as often as something comes, nor a turn and the settling apart. Half the gaps, for a machine may be busy."""
    broker, store = Broker(), Store(apply_s)
    consumer = Consumer(broker, store, topic="rates", oldest_allowed_s=60)
    await broker.ensure("rates", [counting.GROUP])
    await consumer.start()
    began = time.monotonic()
    try:
        for _ in range(MESSAGES):
            batch = Batch(1, 0, uuid4().hex, 0, 1, time.time(), [("film", 5)])
            await broker.publish("rates", encode(batch), 1)
            await asyncio.sleep(0.001)
        assert await until(lambda: broker.unread("rates", counting.GROUP) == 0, 5)
        turns = (time.monotonic() - began) / TURN_S
    finally:
        await consumer.close()
        await broker.close()
    assert (await store.totals()).count == MESSAGES
    await store.close()
    gap_s = median(later - earlier for earlier, later in pairwise(broker.fetched_at))
    assert 0.95 * TURN_S <= gap_s < 1.4 * TURN_S
    assert len(broker.fetched_at) < min(MESSAGES / 2, 1.1 * turns + 2)
