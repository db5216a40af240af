"""The lane: group commit on one destination.

A rate does not publish by itself. It joins the open batch, with a waiter of its own to be told by. While none of the
lane's publishes is unconfirmed, the open batch leaves at the end of the current turn of the event loop; at
`max_in_flight` of them it grows, and leaves when a confirm arrives. In between it leaves once it holds as many rates as
are under way: a small batch costs as much as a large one. No timer and no linger: an idle lane adds no latency, a busy
one makes batches by itself.

A batch, once left, is sent again under the same identity until the broker confirms it, whatever became of the requests
in it. That is safe because the store counts an identity once, and needed because a request that was told "it may or
may not count" must not be forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain, islice
from typing import Protocol
from uuid import uuid4

import structlog

from brokers.base import Broker
from core.batches import ENVELOPE_BYTES, KEY_BYTES, VERSION, Batch, Key, encode, rate_bytes
from core.errors import BatchRefused, BrokerError, BrokerFull, MessageTooLarge, Problem, PublishTimeout
from core.lifecycle import Pauses, Tasks, until
from core.rates import Rate
from core.settings import Publishing
from core.telemetry import COUNTS, SECONDS, Histogram

log = structlog.get_logger()

PRODUCER_LIFETIME_S = 3600.0
"""A lane takes a new producer id this often, so that the store can forget the old one's bits in one piece."""
SHORT_LIFETIME_S = 5.0
"""The same on an at-most-once broker: what was sent and lost turns abandoned when its producer's lease ends."""
LONGEST_PUBLISH_TIMEOUT_S = 60.0
TICK_S = 0.001
"""Of the event loop's clock and timers (uvloop's). It takes less than half of one for no wait at all, so that who asks
for that turns the loop over and over, at full load, until the clock ticks."""
SLOW_S = 0.005
"""Behind a publish that is under way for longer, a batch does not wait until it holds as many rates."""


class Waiter(Protocol):
    """What a request waits by, such as a future. Its result is None once confirmed, or what to answer instead: a result
    and not an exception, for one Problem may answer thousands, and an exception raised thousands of times drags all
    their tracebacks along."""

    def done(self) -> bool:
        """Whether it has its result, or nobody waits any more."""
        ...

    def set_result(self, result: Problem | None, /) -> None:
        """Must not raise: others wait in the same batch."""
        ...


@dataclass(slots=True)
class Producer:
    """An identity that numbers batches. Totals of rates; both only grow."""

    born: float
    id: str = field(default_factory=lambda: uuid4().hex)
    sequence: int = 0
    opened: int = 0
    """Taken in."""
    sealed: int = 0
    """Taken in and in a batch that has its sequence number."""
    confirmed: int = 0
    """Confirmed, or refused for good and settled as such."""


@dataclass(slots=True)
class Group:
    """Rates that will leave, or have left, in one batch, and the requests that wait for them."""

    producer: Producer
    max_bytes: int
    rates: list[Rate] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    size_bytes: int = ENVELOPE_BYTES
    waiters: list[tuple[float, Waiter]] = field(default_factory=list)
    """When each joined, by the event loop's clock, ascending; and how it is told."""
    answered: int = 0
    """How many of `waiters`, from the front, have been told that it takes too long."""

    def seal(self, shard: int) -> Batch:
        """The batch, with its sequence number."""
        producer = self.producer
        producer.sealed += len(self.rates)
        sequence, producer.sequence = producer.sequence, producer.sequence + 1
        return Batch(
            version=VERSION,
            shard=shard,
            producer=producer.id,
            sequence=sequence,
            opened=producer.sealed,
            at=time.time(),
            rates=self.rates,
            keys=self.keys,
        )

    def confirm(self) -> None:
        self.producer.confirmed += len(self.rates)
        for _, waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, problem: Problem, joined_before: float = float("inf")) -> bool:
        """Answer those who joined before a time and still wait; whether that was all of them."""
        while self.answered < len(self.waiters):
            joined, waiter = self.waiters[self.answered]
            if joined >= joined_before:
                return False
            if not waiter.done():
                waiter.set_result(problem)
            self.answered += 1
        return True


class Lane:
    """One destination: a topic and a shard. `ready` gates publishing: its owner sets it when the topic stands, and the
    lane clears it when a publish failed in a way that may mean that the topic is gone."""

    def __init__(
        self,
        broker: Broker,
        topic: str,
        shard: int,
        settings: Publishing,
        max_rates: int,
        tasks: Tasks,
        *,
        at_once: bool = False,
    ) -> None:
        """With `at_once` no batch waits for more rates while there is room in flight."""
        self.topic = topic
        self.shard = shard
        self.ready = asyncio.Event()
        self.unconfirmed = 0
        """Rates taken in and not confirmed."""
        self.full: str | None = None
        """What the broker said when it last refused for want of space, until it takes one again, or whatever it refused
        ends otherwise."""
        self.batch_sizes = Histogram(COUNTS)
        self.confirm_times = Histogram(SECONDS)
        self.confirmed = self.resent = self.timed_out = 0
        self._broker = broker
        self._settings = settings
        self._max_rates = max_rates
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(born=self._loop.time())
        self._former: list[Producer] = []
        self._open: Group | None = None
        self._waiting: deque[Group] = deque()
        self._left: dict[int, Group] = {}
        """Under way, oldest first."""
        self._answered: dict[int, Group] = {}
        """Under way too, and older; nobody waits for these any more."""
        self._refused: list[Batch] = []
        self._in_flight = 0
        self._leaving = False
        self._last_left = 0.0
        self._tasks = tasks

    def join(self, rates: list[Rate], waiter: Waiter, identity: str | None = None) -> None:
        """Take `rates` in, whole, in one batch; `waiter` is told when they are confirmed.

        `identity` is that of their Idempotency-Key. Raises Problem 413 when no batch can hold them.
        """
        size_bytes = rate_bytes(rates[0]) if len(rates) == 1 else sum(map(rate_bytes, rates))
        group = self._open
        if (
            group is None
            or len(group.rates) + len(rates) > self._max_rates
            or group.size_bytes + size_bytes + KEY_BYTES > group.max_bytes
        ):
            group = self._open_group(rates, size_bytes)
        if identity is not None:
            group.keys.append(Key(identity, len(group.rates), len(rates)))
            group.size_bytes += KEY_BYTES
        group.rates += rates
        group.size_bytes += size_bytes
        group.producer.opened += len(rates)
        self.unconfirmed += len(rates)
        group.waiters.append((self._loop.time(), waiter))
        if not self._leaving and self._may_leave():
            self._leaving = True
            self._loop.call_soon(self._leave)

    @property
    def max_bytes(self) -> int:
        """The largest message, which the broker may make smaller once it has told its own limit."""
        return min(self._settings.max_batch_bytes, self._broker.features.max_message_bytes)

    def producers(self) -> list[Producer]:
        """Those to report to the store: the present one, and former ones until their last report is made."""
        return [*self._former, self._producer]

    def renew_producer(self) -> None:
        """Go on under a new id if it is time. The open batch and those under way keep theirs."""
        lifetime_s = SHORT_LIFETIME_S if self._broker.features.at_most_once else PRODUCER_LIFETIME_S
        if self._producer.opened and self._loop.time() - self._producer.born > lifetime_s:
            self._former.append(self._producer)
            self._producer = Producer(born=self._loop.time())

    def forget(self, reported: Mapping[str, int]) -> None:
        """Drop former producers of which the store knows all that was taken in as confirmed; `reported`: id ->
        confirmed, as the store has it."""
        self._former = [each for each in self._former if reported.get(each.id) != each.opened]

    def take_refused(self) -> list[Batch]:
        """Batches that the broker will never take and did not store: to be settled without being counted."""
        refused, self._refused = self._refused, []
        return refused

    def give_back_refused(self, batches: list[Batch]) -> None:
        self._refused += batches

    def answer_overdue(self) -> None:
        """Tell requests that have waited CONFIRM_TIMEOUT_S that it takes too long; their batches stay."""
        timeout_s = self._settings.confirm_timeout_s
        joined_before = self._loop.time() - timeout_s
        before = self.timed_out
        problem = _unconfirmed(timeout_s)
        done_with = 0
        for group in self._waited_for():
            answered = group.answered
            everyone = group.fail(problem, joined_before)
            self.timed_out += group.answered - answered
            if not everyone:
                break
            done_with += 1
        for number in list(islice(self._left, done_with)):
            self._answered[number] = self._left.pop(number)
        if self.timed_out > before:
            log.warning("confirms_overdue", topic=self.topic, requests=self.timed_out - before)

    def oldest_s(self) -> float:
        """How long the oldest unconfirmed rate has waited; 0 if there is none."""
        oldest = next(chain(self._answered.values(), self._waited_for()), None)
        return self._loop.time() - oldest.waiters[0][0] if oldest else 0.0

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything taken in is confirmed, or `timeout_s` has passed."""
        if not await until(lambda: not self.unconfirmed, timeout_s):
            log.warning("drain_cut_off", topic=self.topic, unconfirmed=self.unconfirmed)

    def close(self) -> None:
        """Answer what still waits. The publishes under way are the owner's tasks, and its to cancel."""
        gone = _unavailable("stopping", "this replica ended; the rate may or may not count")
        for group in self._waited_for():
            group.fail(gone)

    def _waited_for(self) -> Iterator[Group]:
        """Unconfirmed, and somebody may wait for it; oldest first: under way, full and waiting, open."""
        yield from self._left.values()
        yield from self._waiting
        if self._open is not None:
            yield self._open

    def _open_group(self, rates: list[Rate], size_bytes: int) -> Group:
        if len(rates) > self._max_rates or ENVELOPE_BYTES + size_bytes + KEY_BYTES > self.max_bytes:
            detail = f"a request holds at most {self._max_rates} rates and {self.max_bytes} bytes once encoded"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-many-rates", detail)
        if self._open is not None:
            self._waiting.append(self._open)
        self.renew_producer()
        self._open = Group(self._producer, self.max_bytes)
        return self._open

    def _leave(self) -> None:
        """Send what waits while there is room in flight, oldest first."""
        self._leaving = False
        while (self._waiting or self._open is not None) and self._may_leave():
            if self._settings.min_interval_s and self._spaced():
                return
            if self._waiting:
                group = self._waiting.popleft()
            else:
                assert self._open is not None
                group, self._open = self._open, None
            self._in_flight += 1
            self._last_left = self._loop.time()
            self._left[id(group)] = group
            self._tasks.spawn("lane_publish", self._deliver(group))

    def _may_leave(self) -> bool:
        """Whether the oldest of what waits should leave now, and not with the next confirm."""
        if not self._in_flight:
            return True
        if self._in_flight >= self._settings.max_in_flight:
            return False
        if self._waiting or self._open is None or self._at_once:
            return True
        under_way = self.unconfirmed - len(self._open.rates)
        return len(self._open.rates) >= under_way or self._loop.time() - self._last_left > SLOW_S

    def _spaced(self) -> bool:
        """Whether to wait for MIN_INTERVAL_S, in which case it has been seen to."""
        wait_s = self._last_left + self._settings.min_interval_s - self._loop.time()
        if wait_s < TICK_S / 2:
            return False
        self._leaving = True
        self._loop.call_later(wait_s, self._leave)
        return True

    async def _deliver(self, group: Group) -> None:
        batch = group.seal(self.shard)
        try:
            await self._publish_until_confirmed(group, encode(batch))
        except MessageTooLarge as exc:
            log.error("batch_too_large", topic=self.topic, rates=len(batch.rates), error=str(exc))
            group.fail(_too_large(exc))
            self._refused.append(batch)
            group.producer.confirmed += len(group.rates)
        except BatchRefused as exc:
            group.fail(_not_counted(exc))
            group.producer.confirmed += len(group.rates)
        else:
            self.confirmed += len(group.rates)
            self.batch_sizes.add(len(group.rates))
            self.confirm_times.add(self._loop.time() - group.waiters[0][0])
            group.confirm()
        self.full = None
        number = id(group)
        del (self._left if number in self._left else self._answered)[number]
        self._in_flight -= 1
        self.unconfirmed -= len(group.rates)
        if not self._leaving:
            self._leave()

    async def _publish_until_confirmed(self, group: Group, body: bytes) -> None:
        """Raises MessageTooLarge and BatchRefused, which no repeating helps."""
        timeout_s = self._settings.publish_timeout_s
        pauses = Pauses()
        while True:
            await self.ready.wait()
            try:
                await self._broker.publish(self.topic, body, timeout_s)
                return
            except PublishTimeout as exc:
                timeout_s = min(2 * timeout_s, LONGEST_PUBLISH_TIMEOUT_S)
                error: BrokerError = exc
            except BrokerFull as exc:
                self.full = str(exc)
                group.fail(_full(self.full))
                error = exc
            except (MessageTooLarge, BatchRefused):
                raise
            except BrokerError as exc:
                self.ready.clear()
                error = exc
            self.resent += 1
            log.warning("publish_failed", topic=self.topic, error=type(error).__name__, detail=str(error))
            await pauses.pause()


def _unconfirmed(timeout_s: float) -> Problem:
    detail = f"no confirm within {timeout_s:g} s; the rate may or may not count"
    return _unavailable("unconfirmed", detail)


def _full(said: str) -> Problem:
    return _unavailable("broker-full", f"the broker is full ({said}); the rate may still count")


def _too_large(error: MessageTooLarge) -> Problem:
    return _unavailable(
        "batch-too-large", f"the broker takes no message of this size ({error}); the rate was not counted"
    )


def _not_counted(error: BatchRefused) -> Problem:
    return _unavailable("not-counted", f"the rate was not counted: {error}")


def _unavailable(kind: str, detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, kind, detail, headers={"Retry-After": "1"})
