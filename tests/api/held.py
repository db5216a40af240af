"""A broker in memory whose confirms can be held back."""

from __future__ import annotations

import asyncio

from brokers.memory import MemoryBroker
from core.batches import Batch, decode
from core.errors import BrokerError


class HeldBroker(MemoryBroker):
    """Stores each message, but confirms it only while `confirming` is set, and raises what is in `errors` first."""

    def __init__(self, *, max_bytes: int = 64 * 2**20) -> None:
        super().__init__(max_bytes=max_bytes)
        self.confirming = asyncio.Event()
        self.confirming.set()
        self.errors: list[BrokerError] = []
        self.published: list[Batch] = []

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        self.published.append(decode(body))
        if self.errors:
            raise self.errors.pop(0)
        await super().publish(topic, body, timeout_s)
        await self.confirming.wait()
