"""How often a process fetches while messages trickle in."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from uuid import uuid4

import pytest

import process.reader
from brokers.base import Message
from brokers.memory import MemoryBroker, MemorySubscription
from core import counting
from core.batches import Batch, encode
from core.fold import Fold
from core.lifecycle import until
from core.store import Applied
from process.consumer import Consumer
from store.memory import MemoryStore

MESSAGES = 200
TURN_S = 0.1
"""Longer than it is, so that what a machine adds to each turn is little beside it."""


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
async def test_a_trickle_is_fetched_once_a_turn_of_which_settling_is_a_part(
    monkeypatch: pytest.MonkeyPatch, apply_s: float
) -> None:
    """Not as often as something comes, nor a turn and the settling apart. The shortest gap, for a machine may pause."""
    monkeypatch.setattr(process.reader, "TURN_S", TURN_S)
    broker, store = Broker(), Store(apply_s)
    consumer = Consumer(broker, store, topic="rates", oldest_allowed_s=60)
    await broker.ensure("rates", [counting.GROUP])
    await consumer.start()
    try:
        for _ in range(MESSAGES):
            batch = Batch(1, 0, uuid4().hex, 0, 1, time.time(), [("film", 5)])
            await broker.publish("rates", encode(batch), 1)
            await asyncio.sleep(0.005)
        assert await until(lambda: broker.unread("rates", counting.GROUP) == 0, 10)
    finally:
        await consumer.close()
        await broker.close()
    assert (await store.totals()).count == MESSAGES
    await store.close()
    shortest_s = min(later - earlier for earlier, later in pairwise(broker.fetched_at))
    assert 0.95 * TURN_S <= shortest_s < 1.4 * TURN_S
