"""A store within one process: for the embedded service. The same rules as Redis; everything ends with the process."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Literal

from core.batches import Batch
from core.errors import StoreUnavailable
from core.fold import ALL, MINUTE_S, Fold
from core.store import LEASE_S, MINUTES_KEPT, Applied, Lease, Opened, Ranked, Summary

CHUNK = 65_536
"""Batches whose marks are forgotten together."""


class Marks:
    """A bit per batch of one producer, in chunks; each chunk is forgotten when its newest mark is."""

    def __init__(self) -> None:
        self._chunks: dict[int, tuple[float, bytearray]] = {}

    def has(self, sequence: int, now: float) -> bool:
        kept_until, bits = self._chunks.get(sequence // CHUNK, (0.0, b""))
        index, bit = divmod(sequence % CHUNK, 8)
        return kept_until > now and index < len(bits) and bool(bits[index] >> bit & 1)

    def add(self, sequence: int, kept_until: float) -> None:
        until, bits = self._chunks.get(sequence // CHUNK, (0.0, bytearray()))
        index, bit = divmod(sequence % CHUNK, 8)
        bits.extend(bytes(max(0, index + 1 - len(bits))))
        bits[index] |= 1 << bit
        self._chunks[sequence // CHUNK] = max(until, kept_until), bits

    def forget(self, now: float) -> None:
        self._chunks = {number: chunk for number, chunk in self._chunks.items() if chunk[0] > now}


@dataclass(slots=True)
class _Producer:
    opened: int = 0
    confirmed: int = 0
    settled: int = 0
    lease_until: float = 0.0
    kept_until: float = 0.0
    seen: Marks = field(default_factory=Marks)
    dead: Marks = field(default_factory=Marks)


@dataclass(slots=True)
class _Subject:
    count: int = 0
    sum: int = 0
    distribution: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))


class MemoryStore:
    """The port, in memory. `clock` tells Unix seconds: the store's own time."""

    def __init__(self, *, horizon_s: float, idempotency_s: float, clock: Callable[[], float] = time.time) -> None:
        self._horizon_s = horizon_s
        self._idempotency_s = idempotency_s
        self._clock = clock
        self._subjects: dict[str, _Subject] = {}
        self._minutes: dict[int, defaultdict[str, int]] = {}
        self._producers: defaultdict[str, _Producer] = defaultdict(_Producer)
        self._keys: dict[str, float] = {}
        self._next_sweep = 0.0
        self._closed = False

    async def start(self) -> None: ...

    async def check(self) -> None:
        self._check_open()

    async def apply(self, fold: Fold) -> Applied:
        self._check_open()
        now = self._clock()
        self._forget(now)
        known, expired = set(), set()
        for batch in fold.batches:
            if self._is_known(batch, now):
                known.add((batch.producer, batch.sequence))
            elif batch.at < now - self._horizon_s:
                expired.add((batch.producer, batch.sequence))
        known_keys = frozenset(key for key in fold.keys if self._keys.get(key, 0) > now)
        if known or expired or known_keys:
            return Applied(frozenset(known), frozenset(expired), known_keys)
        self._write(fold, now)
        return Applied()

    async def settle(self, batches: Sequence[Batch]) -> None:
        self._check_open()
        now = self._clock()
        for batch in batches:
            producer = self._producers[batch.producer]
            if not self._is_known(batch, now) and not producer.dead.has(batch.sequence, now):
                producer.dead.add(batch.sequence, self._kept_until(batch, now))
                self._settle(batch, producer, now)

    async def lease(self, leases: Sequence[Lease]) -> None:
        self._check_open()
        now = self._clock()
        for lease in leases:
            producer = self._producers[lease.producer]
            producer.opened = max(producer.opened, lease.opened)
            producer.confirmed = max(producer.confirmed, lease.confirmed)
            producer.lease_until = now + LEASE_S
            producer.kept_until = max(producer.kept_until, producer.lease_until + self._horizon_s)

    async def opened(self) -> Opened:
        self._check_open()
        now = self._clock()
        opened = abandoned = 0
        for producer in self._producers.values():
            unsettled = max(0, producer.opened - producer.settled)
            still = unsettled if producer.lease_until > now else max(0, producer.confirmed - producer.settled)
            opened += still
            abandoned += unsettled - still
        return Opened(opened, abandoned)

    async def totals(self) -> Summary:
        self._check_open()
        return self._summary(ALL) or Summary()

    async def subject(self, name: str) -> Summary | None:
        self._check_open()
        return self._summary(name)

    async def subjects(self, after: str, limit: int) -> list[Ranked]:
        self._check_open()
        names = sorted(name for name in self._subjects if name > after and name != ALL)
        return [self._ranked(name) for name in names[:limit]]

    async def top(self, n: int, by: Literal["count", "mean"]) -> list[Ranked]:
        self._check_open()
        rows = [self._ranked(name) for name in self._subjects if name != ALL]
        return nlargest(n, rows, key=lambda row: (row.count if by == "count" else row.mean, row.subject))

    async def close(self) -> None:
        self._closed = True

    def _write(self, fold: Fold, now: float) -> None:
        for batch in fold.batches:
            producer = self._producers[batch.producer]
            producer.seen.add(batch.sequence, self._kept_until(batch, now))
            if not producer.dead.has(batch.sequence, now):
                self._settle(batch, producer, now)
        for key in fold.keys:
            self._keys[key] = now + self._idempotency_s
        for name, distribution in fold.counts.items():
            subject = self._subjects.setdefault(name, _Subject())
            for rate, count in distribution.items():
                subject.count += count
                subject.sum += rate * count
                subject.distribution[rate] += count
        this_minute = int(now // MINUTE_S)
        for minute, counts in fold.minutes.items():
            of_minute = self._minutes.setdefault(min(minute, this_minute), defaultdict(int))
            for name, count in counts.items():
                of_minute[name] += count

    def _settle(self, batch: Batch, producer: _Producer, now: float) -> None:
        producer.settled += len(batch.rates)
        producer.opened = max(producer.opened, batch.opened)
        producer.kept_until = max(producer.kept_until, self._kept_until(batch, now))

    def _kept_until(self, batch: Batch, now: float) -> float:
        return max(now, batch.at) + self._horizon_s

    def _is_known(self, batch: Batch, now: float) -> bool:
        producer = self._producers.get(batch.producer)
        return producer is not None and producer.seen.has(batch.sequence, now)

    def _summary(self, name: str) -> Summary | None:
        if (subject := self._subjects.get(name)) is None:
            return None
        this_minute = int(self._clock() // MINUTE_S)
        minutes = {
            minute: counts[name]
            for minute, counts in sorted(self._minutes.items())
            if minute > this_minute - MINUTES_KEPT and name in counts
        }
        return Summary(subject.count, subject.sum, dict(sorted(subject.distribution.items())), minutes)

    def _ranked(self, name: str) -> Ranked:
        subject = self._subjects[name]
        return Ranked(name, subject.count, subject.sum / subject.count)

    def _forget(self, now: float) -> None:
        """Once a minute, drop what is out of date."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + MINUTE_S
        oldest = int(now // MINUTE_S) - MINUTES_KEPT
        self._minutes = {minute: counts for minute, counts in self._minutes.items() if minute > oldest}
        self._keys = {key: until for key, until in self._keys.items() if until > now}
        for name, producer in list(self._producers.items()):
            producer.seen.forget(now)
            producer.dead.forget(now)
            if producer.kept_until <= now:
                del self._producers[name]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("closed")
