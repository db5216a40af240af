"""A process' membership of one group: a reader for each topic, one sink for all, and how they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

import structlog
from prometheus_client.core import Metric

from brokers.base import Broker
from core.health import Check
from core.lifecycle import Tasks
from core.patience import Patience
from core.telemetry import counter, gauge
from core.work import Work
from process.reader import Reader, Reading, Readings, Sink

log = structlog.get_logger()

STALLED_AFTER_S: Final = 30.0


class Membership:
    """A lifecycle service over a broker, which it starts but leaves to its owner to close. `patience` is shared with
    the sink.

    `oldest_allowed_s`: /readyz turns red when the oldest message at hand is this old, seconds: what is read later than
    the horizon cannot be counted any more.
    """

    def __init__(
        self,
        broker: Broker,
        sink: Sink,
        reading: Reading,
        patience: Patience,
        *,
        oldest_allowed_s: float,
        work: Work,
    ) -> None:
        self._broker = broker
        self._sink = sink
        self._patience = patience
        self._oldest_allowed_s = oldest_allowed_s
        self._tasks = Tasks()
        self._readings = Readings()
        self._readers = [
            Reader(
                broker,
                sink,
                reading,
                topic,
                work=work,
                patience=patience,
                tasks=self._tasks,
                readings=self._readings,
            )
            for topic in reading.topics
        ]

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._tasks.failed

    async def start(self) -> None:
        if len(self._tasks):
            return
        await self._broker.start()
        if self._broker.features.at_most_once:
            log.warning("at_most_once", meaning="what the broker hands out and this process loses does not come again")
        for reader in self._readers:
            self._tasks.spawn(f"read {reader.topic}", reader.run())

    async def drain(self, timeout_s: float) -> None:
        """Stop fetching, settle and acknowledge what was fetched, leave the group. Work that is not done is left."""
        self._patience.stopping.set()
        if not await self._tasks.wait(timeout_s):
            log.warning("drain_cut_off", waits_for=self._patience.waits_for)
        await self.close()

    async def close(self) -> None:
        self._patience.stopping.set()
        await self._tasks.cancel()
        for reader in self._readers:
            await reader.leave()

    def alive(self) -> dict[str, Check]:
        """Whether the loops turn; to work, and to try again and again what a dependency denies, is turning."""
        turning = [reader for reader in self._readers if not reader.newer]
        if not turning:
            return {"loop": Check(True, "stopped at a newer message")}
        slowest = min(turning, key=lambda reader: reader.turned_at)
        silent_s = time.monotonic() - max(slowest.turned_at, self._patience.tried_at)
        if silent_s < STALLED_AFTER_S:
            return {"loop": Check(True, self._patience.waits_for)}
        return {"loop": Check(False, self._named(slowest, f"has not turned for {silent_s:.0f} s"))}

    def check(self) -> Check:
        """Whether what is published now would be settled soon."""
        if self._patience.stopping.is_set():
            return Check(False, "stopping")
        if waits_for := self._patience.waits_for:
            return Check(False, self._with_newer(waits_for))
        if wrong := [self._named(reader, said) for reader in self._readers if (said := self._wrong_with(reader))]:
            return Check(False, "; ".join(wrong))
        if said := self._sink.check():
            return Check(False, said)
        return Check(True)

    def oldest_s(self) -> float:
        """The age of the oldest batch at hand, seconds; 0 when nothing waits."""
        return max(map(_oldest_s, self._readers))

    def metrics(self) -> Iterator[Metric]:
        yield from self._sink.metrics()
        readings = self._readings
        yield counter("fanrate_fetched_messages", "Messages fetched", readings.messages)
        yield gauge("fanrate_oldest_seconds", "Age of the oldest batch at hand", self.oldest_s())
        yield readings.fetch_sizes.family("fanrate_fetch_messages", "Messages per fetch that was not empty")
        yield readings.settle_times.family("fanrate_settle_seconds", "From a fetch to its being settled")

    def _wrong_with(self, reader: Reader) -> str:
        if reader.newer:
            return f"stopped at a newer message: {reader.newer}; upgrade this process"
        if not reader.fetched:
            return "has not fetched from the broker"
        if (age_s := _oldest_s(reader)) > self._oldest_allowed_s:
            return f"the oldest unread message is {age_s:.0f} s old; more processes are needed"
        return ""

    def _with_newer(self, waits_for: str) -> str:
        newer = [self._named(reader, self._wrong_with(reader)) for reader in self._readers if reader.newer]
        return "; ".join([*newer, waits_for])

    def _named(self, reader: Reader, said: str) -> str:
        """With the topic, where there are several."""
        return f"{reader.topic}: {said}" if len(self._readers) > 1 else said


def _oldest_s(reader: Reader) -> float:
    return time.time() - reader.oldest_at if reader.oldest_at is not None else 0.0
