"""The loop on one topic: fetch, work, give to the sink, acknowledge; and never lose its place to a message.

A message is acknowledged when the sink says that it has come to an end. Until then it stays with the broker, so that
whatever ends this process only makes it come again. What becomes of a batch is the sink's business.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from prometheus_client.core import Metric

from brokers.base import Broker, Message, Subscription
from core.batches import Batch, decode
from core.errors import BrokerError, MalformedBatch, NewerBatch
from core.lifecycle import Tasks
from core.patience import Patience
from core.telemetry import COUNTS, SECONDS, Histogram
from core.work import Work

log = structlog.get_logger()

FETCH_MESSAGES: Final = 2048
FETCH_BYTES: Final = 4 * 2**20
FETCH_WAIT_S: Final = 1.0
TURN_S: Final = 0.01
"""From one fetch to the next at least, unless the first was full, so that more rates share one fold. What settling
takes is part of it: a rate that just missed a fetch waits for it. Twice as long saves nothing that shows."""
PORTION_S: Final = 5.0
"""The most work that is taken from the broker, or done before it is settled, at one time; but at least one batch."""
EXTEND_EVERY_S: Final = 1.0
"""How often the broker is told, during work, that what was fetched is not forgotten."""
LEAST_RATE_BYTES: Final = 8
"""`["a",1],`: a fetch bounded by this holds no more rates than meant."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch, or a part of one, holds: batches, and messages that are none with what is wrong with each."""

    batches: Sequence[tuple[Batch, Message]] = ()
    malformed: Sequence[tuple[Message, str]] = ()


class Sink(Protocol):
    """What a group does with what its members fetch. Called by several readers at a time."""

    async def prepare(self) -> None:
        """Make what must stand before a message is fetched. Raises BrokerError, and is then called again."""

    async def settle(self, topic: str, fetched: Fetched) -> list[Message]:
        """See to what was fetched from `topic`; the messages that came to an end. The others come again."""

    def check(self) -> str:
        """What is wrong with it; empty if nothing is."""

    def metrics(self) -> Iterator[Metric]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """`topics` are read as a member of `group`. All `groups` of them are ensured first, whoever comes first."""

    topics: Sequence[str]
    groups: Sequence[str]
    group: str


@dataclass(slots=True)
class Readings:
    """What the readers of one process have fetched so far."""

    messages: int = 0
    fetch_sizes: Histogram = field(default_factory=lambda: Histogram(COUNTS))
    settle_times: Histogram = field(default_factory=lambda: Histogram(SECONDS))


class Reader:
    """One subscription and its loop, `run`, which ends when `patience.stopping` is set, or at a newer message."""

    def __init__(
        self,
        broker: Broker,
        sink: Sink,
        reading: Reading,
        topic: str,
        *,
        work: Work,
        patience: Patience,
        tasks: Tasks,
        readings: Readings,
    ) -> None:
        self.topic = topic
        self.newer: str | None = None
        """Why it stopped: a message that only a newer program can read."""
        self.fetched = False
        """Whether the last fetch came back."""
        self.turned_at = time.monotonic()
        self.oldest_at: float | None = None
        """The `at` of the oldest batch at hand."""
        self._broker = broker
        self._sink = sink
        self._reading = reading
        self._work = work
        self._patience = patience
        self._tasks = tasks
        self._readings = readings
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        await (self._consume_at_work() if self._work.takes_time else self._consume())
        await self.leave()

    async def leave(self) -> None:
        """Return what was fetched and not acknowledged."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    @property
    def _goes_on(self) -> bool:
        return not self._patience.stopping.is_set() and self.newer is None

    async def _consume(self) -> None:
        """While there is more to fetch, one fetch is decoded and folded while the store writes the one before."""
        settling: deque[asyncio.Task[list[Message]]] = deque()
        while self._goes_on:
            self.turned_at = time.monotonic()
            messages = await self._fetch(FETCH_MESSAGES, FETCH_BYTES)
            full = len(messages) >= FETCH_MESSAGES
            fetched_at = time.monotonic()
            if messages:
                settling.append(self._tasks.spawn("settle", self._settle(messages)))
            else:
                self.oldest_at = None
            while len(settling) > (1 if full else 0):
                await self._acknowledge(await settling.popleft())
            if messages and not full and self._goes_on:
                await asyncio.sleep(max(0.0, fetched_at + TURN_S - time.monotonic()))
        while settling:
            await self._acknowledge(await settling.popleft())

    async def _consume_at_work(self) -> None:
        """Fetch what fits PORTION_S of work, so that other members find some too, and settle portion by portion."""
        rates = self._work.rates_in(PORTION_S)
        while self._goes_on:
            self.turned_at = time.monotonic()
            messages = await self._fetch(min(rates, FETCH_MESSAGES), min(rates * LEAST_RATE_BYTES, FETCH_BYTES))
            if not messages:
                self.oldest_at = None
            for portion in portions(self._note(messages), rates):
                began = time.monotonic()
                if not await self._work_on(portion, messages):
                    return
                settled = await self._sink.settle(self.topic, portion)
                self._readings.settle_times.add(time.monotonic() - began)
                await self._acknowledge(settled)
                done = {id(message) for message in settled}
                messages = [message for message in messages if id(message) not in done]

    async def _work_on(self, portion: Fetched, at_hand: Sequence[Message]) -> bool:
        """Whether the work was done: False if told to stop first, and then it is another member's, from the start."""
        done_at = self._work.begin(sum(len(batch.rates) for batch, _ in portion.batches))
        while left_s := self._work.left_s(done_at):
            self.turned_at = time.monotonic()
            try:
                await asyncio.wait_for(self._patience.stopping.wait(), min(left_s, EXTEND_EVERY_S))
            except TimeoutError:
                if left_s > EXTEND_EVERY_S:
                    await self._extend(at_hand)
            else:
                return False
        return True

    async def _fetch(self, max_messages: int, max_bytes: int) -> list[Message]:
        if self._subscription is None:
            self._subscription = await self._patience.until_done("the broker", self._join)
            if self._subscription is None:
                return []
        try:
            messages = await self._subscription.fetch(max_messages, max_bytes, FETCH_WAIT_S)
        except BrokerError as exc:
            log.warning("fetch_failed", topic=self.topic, error=str(exc))
            self.fetched = False
            await self.leave()
            return []
        self.fetched = True
        return messages

    async def _join(self) -> Subscription:
        """Ensure before joining: also the dead letters, which must never be what a fetch waits for."""
        await self._broker.ensure(self.topic, self._reading.groups)
        await self._sink.prepare()
        return await self._broker.subscribe(self.topic, self._reading.group)

    async def _settle(self, messages: Sequence[Message]) -> list[Message]:
        began = time.monotonic()
        settled = await self._sink.settle(self.topic, self._note(messages))
        self._readings.settle_times.add(time.monotonic() - began)
        return settled

    def _note(self, messages: Sequence[Message]) -> Fetched:
        """Decode what was fetched."""
        if messages:
            self._readings.messages += len(messages)
            self._readings.fetch_sizes.add(len(messages))
        batches: list[tuple[Batch, Message]] = []
        malformed: list[tuple[Message, str]] = []
        for message in messages:
            try:
                batches.append((decode(message.body), message))
            except MalformedBatch as exc:
                malformed.append((message, str(exc)))
            except NewerBatch as exc:
                self.newer = str(exc)
                log.error("newer_message", topic=self.topic, detail=str(exc), remedy="upgrade this process")
        if batches:
            self.oldest_at = min(batch.at for batch, _ in batches)
        return Fetched(batches, malformed)

    async def _acknowledge(self, messages: Sequence[Message]) -> None:
        """What cannot be acknowledged comes again, and is known then."""
        if not messages or self._subscription is None:
            return
        try:
            await self._subscription.acknowledge(messages)
        except BrokerError as exc:
            log.warning("acknowledge_failed", topic=self.topic, error=str(exc), messages=len(messages))

    async def _extend(self, messages: Sequence[Message]) -> None:
        if self._subscription is None:
            return
        try:
            await self._subscription.extend(messages)
        except BrokerError as exc:
            log.warning("extend_failed", topic=self.topic, error=str(exc), messages=len(messages))


def portions(fetched: Fetched, most_rates: int) -> Iterator[Fetched]:
    """Cut along batches into portions of at most `most_rates`, or a lone batch. What is malformed goes with the first,
    for it takes no work."""
    malformed = fetched.malformed
    portion: list[tuple[Batch, Message]] = []
    rates = 0
    for batch, message in fetched.batches:
        if portion and rates + len(batch.rates) > most_rates:
            yield Fetched(portion, malformed)
            portion, malformed, rates = [], (), 0
        portion.append((batch, message))
        rates += len(batch.rates)
    if portion or malformed:
        yield Fetched(portion, malformed)
