"""Dispatch without a broker: the replica handles each rate itself, then counts it into the store.

To the lanes it is a broker whose confirm means counted. So the bound, the deadlines, the keys, the leases and the drain
are those of every other way to dispatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import structlog
from prometheus_client.core import Metric

from brokers.base import Features, Subscription
from core import counting
from core.batches import Batch, decode
from core.counting import Dead
from core.errors import BatchRefused, BrokerError, BrokerUnavailable, StoreRefused
from core.lifecycle import Tasks
from core.patience import Patience
from core.store import Store
from core.work import Work

log = structlog.get_logger()

MOST_BATCH_BYTES: Final = 64 * 2**20
"""What MAX_BATCH_BYTES may be at most: nothing here bounds a batch further."""
STORE_CALLS: Final = 2
"""Counting that goes on at a time; what is handled meanwhile shares the next fold."""


class InlineBroker:
    """The broker port, as far as lanes use it.

    A publish ends when the batch is counted, however long the store is away: there is no way on which a confirm could
    be lost, so nothing is sent, or worked on, a second time. Raises BatchRefused when the batch will never be counted:
    there are no dead letters here.
    """

    features = Features(max_message_bytes=MOST_BATCH_BYTES, server=False)

    def __init__(self, store: Store, work: Work) -> None:
        self._store = store
        self._work = work
        self._handled: list[tuple[Batch, asyncio.Future[Dead | None]]] = []
        """To be counted; each future tells what kept its batch from being counted."""
        self._counting = 0
        self._patience = Patience()
        self._tally = counting.Tally()
        self._tasks = Tasks()

    @property
    def connected(self) -> bool:
        return not self._patience.stopping.is_set()

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._tasks.failed

    def metrics(self) -> Iterator[Metric]:
        return self._tally.metrics()

    async def start(self) -> None: ...

    async def ensure(self, topic: str, groups: Sequence[str]) -> None: ...

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if not self.connected:
            raise BrokerUnavailable("closed")
        batch = decode(body)
        await self._work.done(len(batch.rates))
        if dead := await self._counted(batch):
            raise BatchRefused(f"{dead.reason}: {dead.error}")

    async def subscribe(self, topic: str, group: str) -> Subscription:
        raise BrokerError("nothing is queued with DISPATCH=inline")

    async def close(self) -> None:
        self._patience.stopping.set()
        await self._tasks.cancel()

    async def _counted(self, batch: Batch) -> Dead | None:
        counted: asyncio.Future[Dead | None] = asyncio.get_running_loop().create_future()
        self._handled.append((batch, counted))
        if self._counting < STORE_CALLS:
            self._counting += 1
            self._tasks.spawn("count", self._count_handled())
        return await counted

    async def _count_handled(self) -> None:
        """Count until nothing is left, in folds of all that was handled meanwhile. Told to stop, it leaves the rest."""
        try:
            while self._handled:
                taken, self._handled = self._handled, []
                if (dead := await self._count([batch for batch, _ in taken])) is None:
                    return
                for batch, counted in taken:
                    if not counted.done():
                        counted.set_result(dead.get((batch.producer, batch.sequence)))
        finally:
            self._counting -= 1

    async def _count(self, batches: Sequence[Batch]) -> dict[tuple[str, int], Dead] | None:
        """What will not be counted, by identity, and is settled all the same; None if told to stop first."""
        outcome = await self._patience.until_done("the store", lambda: counting.count(self._store, batches))
        if outcome is None:
            return None
        self._tally.add(outcome)
        for dead in outcome.dead:
            await self._settle(dead)
        return {(dead.batch.producer, dead.batch.sequence): dead for dead in outcome.dead}

    async def _settle(self, dead: Dead) -> None:
        producer, rates = dead.batch.producer, len(dead.batch.rates)
        log.error("not_counted", reason=dead.reason, error=dead.error, producer=producer, rates=rates)
        try:
            await self._patience.done("the store", lambda: self._store.settle([dead.batch]))
        except StoreRefused as exc:
            log.error("not_settled", producer=producer, rates=rates, error=str(exc))
