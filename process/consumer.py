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
from core.errors import BrokerError, FanrateError, MalformedBatch, NewerBatch, StoreRefused, StoreUnavailable
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
        self._waits: dict[str, tuple[str, float]] = {}
        """What a step waits for -> why, and when it was last tried."""
        self._fetched = False
        """Whether the last fetch came back."""
        self._turned_at = time.monotonic()
        self._newer: str | None = None
        self._unburied: str | None = None
        """Why a dead letter could not be written, when it was last tried."""
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
            log.warning("drain_cut_off", waits_for=list(self._waits))
        await self.close()

    async def close(self) -> None:
        self._stopping.set()
        await self._tasks.cancel()
        await self._leave()

    def alive(self) -> dict[str, Check]:
        """Whether the loop turns; trying again and again what a dependency denies is turning."""
        if self._newer:
            return {"loop": Check(True, "stopped at a newer message")}
        silent_s = time.monotonic() - max(self._turned_at, *(tried_at for _, tried_at in self._waits.values()), 0.0)
        if silent_s < STALLED_AFTER_S:
            return {"loop": Check(True, self._waiting())}
        return {"loop": Check(False, f"has not turned for {silent_s:.0f} s")}

    def check(self) -> Check:
        """Whether what is published now would be counted soon."""
        if self._stopping.is_set():
            return Check(False, "stopping")
        if self._newer:
            return Check(False, f"stopped at a newer message: {self._newer}; upgrade this process")
        if self._waits:
            return Check(False, self._waiting())
        if not self._fetched:
            return Check(False, "has not fetched from the broker")
        if self._unburied:
            return Check(False, f"a dead letter waits to be written: {self._unburied}")
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
            self._fetched = False
            await self._leave()
            return []
        self._fetched = True
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
        """See each message to its end; those that came to one.

        What can be counted is, first: a dead-letter topic that takes nothing in must not hold it up.
        """
        began = time.monotonic()
        self._messages += len(messages)
        self._fold_sizes.add(len(messages))
        batches, malformed = self._decode(messages)
        settled: list[Message] = []
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
        settled += [message for message, error in malformed if await self._bury(message.body, "malformed", error)]
        self._settle_times.add(time.monotonic() - began)
        return settled

    def _decode(self, messages: Sequence[Message]) -> tuple[list[tuple[Batch, Message]], list[tuple[Message, str]]]:
        """The batches; and the messages that are none, with what is wrong with each."""
        batches: list[tuple[Batch, Message]] = []
        malformed: list[tuple[Message, str]] = []
        for message in messages:
            try:
                batches.append((decode(message.body), message))
            except MalformedBatch as exc:
                malformed.append((message, str(exc)))
            except NewerBatch as exc:
                self._newer = str(exc)
                log.error("newer_message", detail=str(exc), remedy="upgrade this process; nothing is lost")
        return batches, malformed

    async def _bury_batch(self, dead: Dead, bodies: dict[tuple[str, int], bytes]) -> bool:
        """The dead letter first, then settled: a batch is never neither. A store that refuses even to settle it leaves
        `opened` too high by the batch, which is told; it must not hold up the others."""
        if not await self._bury(bodies[dead.batch.producer, dead.batch.sequence], dead.reason, dead.error):
            return False
        try:
            done = await self._until_done("the store", lambda: _true_after(self._store.settle([dead.batch])))
        except StoreRefused as exc:
            log.error("not_settled", producer=dead.batch.producer, rates=len(dead.batch.rates), error=str(exc))
            return True
        return done is not None

    async def _bury(self, body: bytes, reason: Reason, error: str) -> bool:
        """Write a dead letter; False if the broker does not take it now, and the message is to come again."""
        letter = bury(body, self._topic, reason, error, max_message_bytes=self._broker.features.max_message_bytes)
        try:
            await self._broker.publish(self._dead_topic, letter, PUBLISH_TIMEOUT_S)
        except BrokerError as exc:
            if self._unburied is None:
                log.error("dead_letter_not_written", reason=reason, error=str(exc))
            self._unburied = str(exc)
            return False
        self._unburied = None
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
        """Try `step`, with growing pauses while a dependency is away, until it is done; None if told to stop first.

        Raises what no trying again helps.
        """
        pauses = Pauses()
        try:
            while True:
                try:
                    return await step()
                except (BrokerError, StoreUnavailable) as exc:
                    self._note_wait(what, exc)
                if self._stopping.is_set():
                    return None
                await pauses.pause()
        finally:
            self._waits.pop(what, None)

    def _note_wait(self, what: str, error: FanrateError) -> None:
        if self._waits.get(what, ("", 0.0))[0] != str(error):
            log.warning("waiting", waits_for=what, error=str(error))
        self._waits[what] = str(error), time.monotonic()

    def _waiting(self) -> str:
        return "; ".join(f"waits for {what}: {error}" for what, (error, _) in self._waits.items())


async def _true_after(step: Awaitable[None]) -> bool:
    await step
    return True
