"""The publisher: what stands between requests and the lane. Bounds what is unconfirmed, keeps the topic ensured,
answers overdue requests, and reports the lane's producers to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus

import structlog
from prometheus_client.core import Metric

from api.lane import Lane, Waiter
from brokers.base import Broker
from core.errors import BrokerError, Problem, SettingsError, StoreError
from core.health import Check
from core.lifecycle import Deadline, Pauses, Tasks
from core.rates import Rate
from core.settings import Publishing
from core.store import Lease, Store
from core.telemetry import counter, gauge

log = structlog.get_logger()

LEASE_INTERVAL_S = 0.25
SWEEP_INTERVAL_S = 0.1
LAST_REPORT_S = 0.5
"""Kept back from a drain's time for the last lease."""


class Publisher:
    """A lifecycle service; `join` is its hot path."""

    def __init__(
        self, broker: Broker, store: Store, settings: Publishing, *, topic: str, groups: Sequence[str], max_rates: int
    ) -> None:
        """Raises SettingsError when the broker could not take the largest batch."""
        if settings.max_batch_bytes > broker.features.max_message_bytes:
            most = broker.features.max_message_bytes
            raise SettingsError(f"MAX_BATCH_BYTES {settings.max_batch_bytes} is above the broker's {most}")
        self._broker = broker
        self._store = store
        self._groups = groups
        self._bound = settings.max_unconfirmed
        self._max_batch_bytes = settings.max_batch_bytes
        self._stuck_after_s = settings.confirm_timeout_s
        self._tasks = Tasks()
        self._lane = Lane(broker, topic, 0, settings, max_rates, self._tasks)
        self._refused = 0
        self._not_ensured = "not connected yet"
        self._leases_fail = False
        self._stopping = False

    def join(self, rates: list[Rate], identity: str | None = None) -> Waiter:
        """Take `rates` in; see `Lane.join`. Raises Problem 503, with nothing taken in, past the bound, while the broker
        is full, and at the end."""
        lane = self._lane
        if lane.unconfirmed + len(rates) > self._bound or lane.full or self._stopping:
            self._refused += 1
            raise self._refusal()
        return lane.join(rates, identity)

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._tasks.failed

    async def start(self) -> None:
        if len(self._tasks):
            return
        await self._broker.start()
        self._tasks.spawn("ensure_topic", self._keep_ensured())
        self._tasks.spawn("answer_overdue", self._keep_answering())
        self._tasks.spawn("report_leases", self._keep_reporting())

    async def drain(self, timeout_s: float) -> None:
        """Wait for the confirms, then report once more."""
        self._stopping = True
        deadline = Deadline(timeout_s)
        await self._lane.drain(max(0.0, deadline.left_s - LAST_REPORT_S))
        await self.report(LAST_REPORT_S)

    async def close(self) -> None:
        self._stopping = True
        await self._tasks.cancel()
        self._lane.close()

    async def report(self, timeout_s: float) -> None:
        """Report all producers to the store, as well as may be within `timeout_s`."""
        leases = [Lease(each.id, each.opened, each.confirmed) for each in self._lane.producers()]
        refused = self._lane.take_refused()
        try:
            async with asyncio.timeout(timeout_s):
                await self._store.lease(leases)
                if refused:
                    await self._store.settle(refused)
        except (StoreError, TimeoutError) as exc:
            self._lane.give_back_refused(refused)
            if not self._leases_fail:
                log.warning("leases_not_reported", error=str(exc) or "no answer")
            self._leases_fail = True
        else:
            self._lane.forget({lease.producer: lease.confirmed for lease in leases})
            if self._leases_fail:
                log.info("leases_reported_again")
            self._leases_fail = False

    def check(self) -> Check:
        """Whether a rate sent now would be confirmed, as far as is known."""
        if self._stopping:
            return Check(False, "stopping")
        if not self._broker.connected:
            return Check(False, "no connection to the broker")
        if not self._lane.ready.is_set():
            return Check(False, self._not_ensured)
        if self._lane.full:
            return Check(False, f"the broker is full: {self._lane.full}")
        if (waited_s := self._lane.oldest_s()) > self._stuck_after_s:
            return Check(False, f"no confirm for {waited_s:.0f} s")
        return Check(True)

    def metrics(self) -> Iterator[Metric]:
        lane = self._lane
        yield counter("fanrate_confirmed_rates", "Rates that the broker confirmed", lane.confirmed)
        yield counter("fanrate_publishes_repeated", "Batches published again after an error", lane.resent)
        yield counter("fanrate_requests_overdue", "Requests answered 503 for want of a confirm in time", lane.timed_out)
        yield counter("fanrate_requests_refused", "Requests answered 503 and not taken in", self._refused)
        yield gauge("fanrate_unconfirmed_rates", "Rates taken in and not confirmed", lane.unconfirmed)
        yield lane.batch_sizes.family("fanrate_batch_rates", "Rates per confirmed batch")
        yield lane.confirm_times.family("fanrate_confirm_seconds", "From a batch's first rate to its confirm")

    def _refusal(self) -> Problem:
        if self._stopping:
            kind, detail = "stopping", "this replica is going away"
        elif self._lane.full:
            kind, detail = "broker-full", f"the broker is full: {self._lane.full}"
        else:
            kind, detail = "busy", f"{self._lane.unconfirmed} rates are unconfirmed, at most {self._bound}"
        detail += "; the rate was not taken in"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, kind, detail, headers={"Retry-After": "1"})

    async def _keep_ensured(self) -> None:
        """Make the topic exist: at the start, after each loss of the connection, for the server may come back without
        its data, and whenever a publish failed as if the topic were gone."""
        pauses = Pauses()
        while True:
            if not self._broker.connected:
                self._lane.ready.clear()
            if self._lane.ready.is_set():
                pauses.reset()
                await asyncio.sleep(SWEEP_INTERVAL_S)
                continue
            try:
                await self._broker.ensure(self._lane.topic, self._groups)
            except BrokerError as exc:
                if str(exc) != self._not_ensured:
                    log.warning("topic_not_ensured", topic=self._lane.topic, error=str(exc))
                self._not_ensured = str(exc)
                await pauses.pause()
            else:
                log.debug("topic_ensured", topic=self._lane.topic)
                if self._lane.max_bytes < self._max_batch_bytes:
                    log.warning("broker_takes_less", bytes=self._lane.max_bytes, max_batch_bytes=self._max_batch_bytes)
                self._lane.ready.set()

    async def _keep_answering(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self._lane.answer_overdue()

    async def _keep_reporting(self) -> None:
        while True:
            await self.report(LEASE_INTERVAL_S * 4)
            await asyncio.sleep(LEASE_INTERVAL_S)
