"""The publisher: what stands between requests and the lanes, one for each topic. Chooses a lane, bounds what is
unconfirmed, keeps the topics ensured, answers overdue requests, and reports the lanes' producers to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus

import structlog
from prometheus_client.core import Metric

from api.dispatch import Choose
from api.lane import Lane, Waiter
from brokers.base import Broker
from core.errors import BrokerError, BrokerUnavailable, Problem, SettingsError, StoreError
from core.health import Check
from core.lifecycle import Deadline, Pauses, Tasks
from core.rates import Rate
from core.settings import Publishing
from core.store import Lease, Store
from core.telemetry import Histogram, counter, gauge

log = structlog.get_logger()

ENSURE_INTERVAL_S = 1.0
LEASE_INTERVAL_S = 0.25
SWEEP_INTERVAL_S = 0.1
LAST_REPORT_S = 0.5
"""Kept back from a drain's time for the last lease."""


class Publisher:
    """A lifecycle service; `enter` is its hot path."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        settings: Publishing,
        *,
        topic: str | Sequence[str],
        groups: Sequence[str],
        max_rates: int,
        choose: Choose | None = None,
        answers_at_once: bool = False,
        publishes_at_once: bool = False,
    ) -> None:
        """`topic` is one, or several among which `choose` chooses. With `answers_at_once` a request is told that it was
        confirmed as soon as it is taken in; with `publishes_at_once` no batch waits for more rates. Raises
        SettingsError when the broker could not take the largest batch."""
        if settings.max_batch_bytes > broker.features.max_message_bytes:
            most = broker.features.max_message_bytes
            raise SettingsError(f"MAX_BATCH_BYTES {settings.max_batch_bytes} is above the broker's {most}")
        self._broker = broker
        self._store = store
        self._groups = groups
        self._bound = settings.max_unconfirmed
        self._max_batch_bytes = settings.max_batch_bytes
        self._stuck_after_s = settings.confirm_timeout_s
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        topics = [topic] if isinstance(topic, str) else topic
        self._lanes = [
            Lane(broker, name, 0, settings, max_rates, self._tasks, at_once=publishes_at_once) for name in topics
        ]
        self._choose = choose
        self._answers_at_once = answers_at_once
        self._refused = 0
        self._not_ensured = dict.fromkeys(topics, "not connected yet")
        self._away = "no connection to the broker"
        self._leases_fail = False
        self._stopping = False

    def join(self, rates: list[Rate], identity: str | None = None) -> asyncio.Future[Problem | None]:
        """`enter` with a future to await."""
        waiter: asyncio.Future[Problem | None] = self._loop.create_future()
        self.enter(rates, identity, waiter)
        return waiter

    def enter(self, rates: list[Rate], identity: str | None, waiter: Waiter) -> None:
        """Take `rates` in; see `Lane.join`. Raises Problem 503, with nothing taken in, past the bound, while the broker
        is full, and at the end."""
        if self._choose is None:
            lane = self._lanes[0]
            unconfirmed = lane.unconfirmed
        else:
            lane = self._lanes[self._choose(rates)]
            unconfirmed = self._unconfirmed
        if unconfirmed + len(rates) > self._bound or lane.full or self._stopping:
            self._refused += 1
            raise self._refusal(lane)
        lane.join(rates, waiter, identity)
        if self._answers_at_once:
            waiter.set_result(None)

    @property
    def _unconfirmed(self) -> int:
        return sum(lane.unconfirmed for lane in self._lanes)

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._tasks.failed

    async def start(self) -> None:
        if len(self._tasks):
            return
        await self._broker.start()
        for lane in self._lanes:
            self._tasks.spawn(f"ensure_topic {lane.topic}", self._keep_ensured(lane))
        self._tasks.spawn("answer_overdue", self._keep_answering())
        self._tasks.spawn("report_leases", self._keep_reporting())

    async def drain(self, timeout_s: float) -> None:
        """Wait for the confirms, then report once more."""
        self._stopping = True
        deadline = Deadline(timeout_s)
        within_s = max(0.0, deadline.left_s - LAST_REPORT_S)
        await asyncio.gather(*(lane.drain(within_s) for lane in self._lanes))
        await self.report(LAST_REPORT_S)

    async def close(self) -> None:
        self._stopping = True
        await self._tasks.cancel()
        for lane in self._lanes:
            lane.close()

    async def report(self, timeout_s: float) -> None:
        """Report all producers to the store, as well as may be within `timeout_s`.

        What an at-most-once broker confirmed is not reported as that: if it never arrives, it is abandoned.
        """
        producers = [producer for lane in self._lanes for producer in lane.producers()]
        confirmed = {each.id: each.confirmed for each in producers}
        vouched_for = {} if self._broker.features.at_most_once else confirmed
        leases = [Lease(each.id, each.opened, vouched_for.get(each.id, 0)) for each in producers]
        refused = [(lane, lane.take_refused()) for lane in self._lanes]
        try:
            async with asyncio.timeout(timeout_s):
                await self._store.lease(leases)
                if batches := [batch for _, taken in refused for batch in taken]:
                    await self._store.settle(batches)
        except (StoreError, TimeoutError) as exc:
            for lane, taken in refused:
                lane.give_back_refused(taken)
            if not self._leases_fail:
                log.warning("leases_not_reported", error=str(exc) or "no answer")
            self._leases_fail = True
        else:
            for lane in self._lanes:
                lane.forget(confirmed)
            if self._leases_fail:
                log.info("leases_reported_again")
            self._leases_fail = False

    def check(self) -> Check:
        """Whether a rate sent now would be confirmed, as far as is known, whichever topic it goes to."""
        if self._stopping:
            return Check(False, "stopping")
        if not self._broker.connected:
            return Check(False, self._away)
        wrong = [(lane.topic, said) for lane in self._lanes if (said := self._wrong_with(lane))]
        named = len(self._lanes) > 1
        return Check(not wrong, "; ".join(f"{topic}: {said}" if named else said for topic, said in wrong))

    def metrics(self) -> Iterator[Metric]:
        lanes = self._lanes
        confirmed = sum(lane.confirmed for lane in lanes)
        resent = sum(lane.resent for lane in lanes)
        timed_out = sum(lane.timed_out for lane in lanes)
        batch_sizes = Histogram.sum_of([lane.batch_sizes for lane in lanes])
        confirm_times = Histogram.sum_of([lane.confirm_times for lane in lanes])
        yield counter("fanrate_confirmed_rates", "Rates that the broker confirmed", confirmed)
        yield counter("fanrate_publishes_repeated", "Batches published again after an error", resent)
        yield counter("fanrate_requests_overdue", "Requests answered 503 for want of a confirm in time", timed_out)
        yield counter("fanrate_requests_refused", "Requests answered 503 and not taken in", self._refused)
        yield gauge("fanrate_unconfirmed_rates", "Rates taken in and not confirmed", self._unconfirmed)
        yield batch_sizes.family("fanrate_batch_rates", "Rates per confirmed batch")
        yield confirm_times.family("fanrate_confirm_seconds", "From a batch's first rate to its confirm")

    def _wrong_with(self, lane: Lane) -> str:
        if not lane.ready.is_set():
            return self._not_ensured[lane.topic]
        if lane.full:
            return f"the broker is full: {lane.full}"
        if (waited_s := lane.oldest_s()) > self._stuck_after_s:
            return f"no confirm for {waited_s:.0f} s"
        return ""

    def _refusal(self, lane: Lane) -> Problem:
        if self._stopping:
            kind, detail = "stopping", "this replica is going away"
        elif lane.full:
            kind, detail = "broker-full", f"the broker is full: {lane.full}"
        else:
            kind, detail = "busy", f"{self._unconfirmed} rates are unconfirmed, at most {self._bound}"
        detail += "; the rate was not taken in"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, kind, detail, headers={"Retry-After": "1"})

    async def _keep_ensured(self, lane: Lane) -> None:
        """Make the topic exist: at the start, after each loss of the connection, for the server may come back without
        its data, and whenever a publish failed as if the topic were gone. And again and again while it stands: not
        every broker tells who publishes that one of several groups was deleted."""
        pauses = Pauses()
        clock = asyncio.get_running_loop().time
        again_at = clock()
        while True:
            if not self._broker.connected:
                lane.ready.clear()
            if lane.ready.is_set() and clock() < again_at:
                pauses.reset()
                await asyncio.sleep(SWEEP_INTERVAL_S)
                continue
            again_at = clock() + ENSURE_INTERVAL_S
            try:
                await self._broker.ensure(lane.topic, self._groups)
            except BrokerError as exc:
                if lane.ready.is_set() and isinstance(exc, BrokerUnavailable):
                    continue  # publishes tell by themselves, and sooner
                lane.ready.clear()
                self._note(lane.topic, str(exc))
                await pauses.pause()
            else:
                if lane.ready.is_set():
                    continue
                log.debug("topic_ensured", topic=lane.topic)
                if lane.max_bytes < self._max_batch_bytes:
                    log.warning("broker_takes_less", bytes=lane.max_bytes, max_batch_bytes=self._max_batch_bytes)
                lane.ready.set()

    def _note(self, topic: str, error: str) -> None:
        """Why a topic is not ensured; of its connection the adapter has told already."""
        if not self._broker.connected:
            self._away = error
        elif error != self._not_ensured[topic]:
            log.warning("topic_not_ensured", topic=topic, error=error)
        self._not_ensured[topic] = error

    async def _keep_answering(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            for lane in self._lanes:
                lane.renew_producer()
                if not self._answers_at_once:
                    lane.answer_overdue()

    async def _keep_reporting(self) -> None:
        while True:
            await self.report(LEASE_INTERVAL_S * 4)
            await asyncio.sleep(LEASE_INTERVAL_S)
