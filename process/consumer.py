"""The consumer: fetch, fold, store, acknowledge; and never lose its place to a message that cannot be counted.

A message is acknowledged when what it holds is settled: counted, known, or written to the dead letters. Until then it
stays with the broker, so that whatever ends this process only makes it come again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

import structlog
from prometheus_client.core import Metric

from brokers.base import Broker, Message, Subscription
from core import counting
from core.batches import Batch, decode
from core.counting import Dead
from core.errors import BrokerError, FanrateError, MalformedBatch, NewerBatch, StoreError
from core.health import Check
from core.letters import GROUP as REDRIVE
from core.letters import Reason, bury, dead_topic
from core.lifecycle import Pauses, Tasks
from core.store import Store
from core.telemetry import COUNTS, SECONDS, Histogram, counter, gauge

log = structlog.get_logger()

FETCH_MESSAGES: Final = 2048
FETCH_BYTES: Final = 4 * 2**20
FETCH_WAIT_S: Final = 1.0
PAUSE_S: Final = 0.02
"""Between fetches that were not full: more rates share one fold, which costs a fifth of the processor's time."""
STALLED_AFTER_S: Final = 30.0
PUBLISH_TIMEOUT_S: Final = 5.0

_T = TypeVar("_T")


class Consumer:
    """One member of the counting group. A lifecycle service over a broker and a store, which it starts but leaves to
    its owner to close.

    `oldest_allowed_s`: /readyz turns red when the oldest message at hand is this old, seconds: what is read later than
    the horizon cannot be counted any more.
    """

    def __init__(self, broker: Broker, store: Store, *, topic: str, oldest_allowed_s: float) -> None:
        self._broker = broker
        self._store = store
        self._topic = topic
        self._dead_topic = dead_topic(topic)
        self._oldest_allowed_s = oldest_allowed_s
        self._oldest_at: float | None = None
        self._waits_for = "the broker"
        self._turned_at = time.monotonic()
        self._newer: str | None = None
        self._stopping = asyncio.Event()
        self._tasks = Tasks()
        self._subscription: Subscription | None = None
        self._messages = self._counted = self._repeated = self._dead = self._calls = 0
        self._fold_sizes = Histogram(COUNTS)
        self._settle_times = Histogram(SECONDS)

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._tasks.failed

    async def start(self) -> None:
        if len(self._tasks):
            return
        await self._broker.start()
        await self._store.start()
        self._tasks.spawn("consume", self._consume())

    async def drain(self, timeout_s: float) -> None:
        """Stop fetching, settle and acknowledge what was fetched, leave the group."""
        self._stopping.set()
        if not await self._tasks.wait(timeout_s):
            log.warning("drain_cut_off", waits_for=self._waits_for)
        await self.close()

    async def close(self) -> None:
        self._stopping.set()
        await self._tasks.cancel()
        await self._leave()

    def alive(self) -> dict[str, Check]:
        """Whether the loop turns; waiting for a dependency is turning."""
        silent_s = time.monotonic() - self._turned_at
        if self._waits_for or silent_s < STALLED_AFTER_S:
            return {"loop": Check(True, f"waits for {self._waits_for}" if self._waits_for else "")}
        return {"loop": Check(False, f"has not turned for {silent_s:.0f} s")}

    def check(self) -> Check:
        """Whether what is published now would be counted soon."""
        if self._stopping.is_set():
            return Check(False, "stopping")
        if self._newer:
            return Check(False, f"stopped at a newer message: {self._newer}; upgrade this process")
        if self._waits_for:
            return Check(False, f"waits for {self._waits_for}")
        if (age_s := self.oldest_s()) > self._oldest_allowed_s:
            return Check(False, f"the oldest unread message is {age_s:.0f} s old; more processes are needed")
        return Check(True)

    def oldest_s(self) -> float:
        """The age of the oldest batch at hand, seconds; 0 when nothing waits."""
        return time.time() - self._oldest_at if self._oldest_at is not None else 0.0

    def metrics(self) -> Iterator[Metric]:
        yield counter("fanrate_counted_rates", "Rates counted", self._counted)
        yield counter("fanrate_repeated_rates", "Rates that came again and were not counted again", self._repeated)
        yield counter("fanrate_fetched_messages", "Messages fetched", self._messages)
        yield counter("fanrate_dead_letters", "Messages written to the dead letters", self._dead)
        yield counter("fanrate_store_calls", "Folds offered to the store", self._calls)
        yield gauge("fanrate_oldest_seconds", "Age of the oldest batch at hand", self.oldest_s())
        yield self._fold_sizes.family("fanrate_fetch_messages", "Messages per fetch that was not empty")
        yield self._settle_times.family("fanrate_settle_seconds", "From a fetch to its being settled")

    async def _consume(self) -> None:
        """While there is more to fetch, one fetch is decoded and folded while the store writes the one before."""
        settling: deque[asyncio.Task[list[Message]]] = deque()
        while not self._stopping.is_set() and self._newer is None:
            self._turned_at = time.monotonic()
            messages = await self._fetch()
            full = len(messages) >= FETCH_MESSAGES
            if messages:
                settling.append(self._tasks.spawn("settle", self._settle(messages)))
            else:
                self._oldest_at = None
            while len(settling) > (1 if full else 0):
                await self._acknowledge(await settling.popleft())
            if messages and not full and not self._stopping.is_set():
                await asyncio.sleep(PAUSE_S)
        while settling:
            await self._acknowledge(await settling.popleft())
        await self._leave()

    async def _fetch(self) -> list[Message]:
        if self._subscription is None:
            self._subscription = await self._until_done("the broker", self._join)
            if self._subscription is None:
                return []
        try:
            messages = await self._subscription.fetch(FETCH_MESSAGES, FETCH_BYTES, FETCH_WAIT_S)
        except BrokerError as exc:
            log.warning("fetch_failed", error=str(exc))
            await self._leave()
            return []
        self._waits_for = ""
        return messages

    async def _join(self) -> Subscription:
        """Ensure before joining: also the dead letters, which must never be what a fetch waits for."""
        await self._broker.ensure(self._topic, [counting.GROUP])
        await self._broker.ensure(self._dead_topic, [REDRIVE])
        return await self._broker.subscribe(self._topic, counting.GROUP)

    async def _leave(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    async def _settle(self, messages: Sequence[Message]) -> list[Message]:
        """See each message to its end; those that came to one."""
        began = time.monotonic()
        self._messages += len(messages)
        self._fold_sizes.add(len(messages))
        batches, settled = await self._decode(messages)
        bodies = {(batch.producer, batch.sequence): message.body for batch, message in batches}
        outcome = None
        if batches:
            self._oldest_at = min(batch.at for batch, _ in batches)
            outcome = await self._until_done(
                "the store", lambda: counting.count(self._store, (batch for batch, _ in batches))
            )
        if outcome is not None:
            self._counted += outcome.counted_rates
            self._repeated += outcome.repeated_rates
            self._calls += outcome.calls
            buried = [await self._bury_batch(dead, bodies) for dead in outcome.dead]
            unburied = {
                (dead.batch.producer, dead.batch.sequence)
                for dead, done in zip(outcome.dead, buried, strict=True)
                if not done
            }
            settled += [message for batch, message in batches if (batch.producer, batch.sequence) not in unburied]
        self._settle_times.add(time.monotonic() - began)
        return settled

    async def _decode(self, messages: Sequence[Message]) -> tuple[list[tuple[Batch, Message]], list[Message]]:
        """The batches; and the messages that were none and have become dead letters."""
        batches: list[tuple[Batch, Message]] = []
        buried: list[Message] = []
        for message in messages:
            try:
                batches.append((decode(message.body), message))
            except MalformedBatch as exc:
                if await self._bury(message.body, "malformed", str(exc)):
                    buried.append(message)
            except NewerBatch as exc:
                self._newer = str(exc)
                log.error("newer_message", detail=str(exc), remedy="upgrade this process; nothing is lost")
        return batches, buried

    async def _bury_batch(self, dead: Dead, bodies: dict[tuple[str, int], bytes]) -> bool:
        """The dead letter first, then settled: a batch is never neither."""
        body = bodies[dead.batch.producer, dead.batch.sequence]
        if not await self._bury(body, dead.reason, dead.error):
            return False
        done = await self._until_done("the store", lambda: _true_after(self._store.settle([dead.batch])))
        return done is not None

    async def _bury(self, body: bytes, reason: Reason, error: str) -> bool:
        letter = bury(body, self._topic, reason, error, max_message_bytes=self._broker.features.max_message_bytes)
        done = await self._until_done(
            "the broker to take a dead letter",
            lambda: _true_after(self._broker.publish(self._dead_topic, letter, PUBLISH_TIMEOUT_S)),
        )
        if done is None:
            return False
        self._dead += 1
        log.error("dead_letter", reason=reason, error=error, bytes=len(body))
        return True

    async def _acknowledge(self, messages: Sequence[Message]) -> None:
        """What cannot be acknowledged comes again, and is known then."""
        if not messages or self._subscription is None:
            return
        try:
            await self._subscription.acknowledge(messages)
        except BrokerError as exc:
            log.warning("acknowledge_failed", error=str(exc), messages=len(messages))

    async def _until_done(self, what: str, step: Callable[[], Awaitable[_T]]) -> _T | None:
        """Try `step`, with growing pauses while a dependency is away, until it is done; None if told to stop first."""
        pauses = Pauses()
        while True:
            try:
                done = await step()
            except (BrokerError, StoreError) as exc:
                self._note_wait(what, exc)
            else:
                self._waits_for = ""
                return done
            if self._stopping.is_set():
                return None
            await pauses.pause()

    def _note_wait(self, what: str, error: FanrateError) -> None:
        waits_for = f"{what}: {error}"
        if waits_for != self._waits_for:
            log.warning("waiting", waits_for=what, error=str(error))
        self._waits_for = waits_for
        self._turned_at = time.monotonic()


async def _true_after(step: Awaitable[None]) -> bool:
    await step
    return True
