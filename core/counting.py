"""Counting: batches go in, each comes out settled. The one place where exactly once is decided on the consumers' side.

Optimistic: the fold of a whole fetch is offered at once. The store takes all of it or names what it knows; that is
dropped, the rest folded and offered again. Two calls, unless another consumer came between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from prometheus_client.core import Metric

from core.batches import Batch
from core.errors import StoreRefused
from core.fold import cut, fold, without_doubles
from core.store import Store
from core.telemetry import counter

GROUP: Final = "counters"
"""The consumer group whose members count, unless GROUPS names another first. Publishers ensure it too: nothing is
confirmed before it exists."""

MAX_SUBJECTS_PER_CALL: Final = 10_000
MAX_BYTES_PER_CALL: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Dead:
    """A batch that will not be counted."""

    batch: Batch
    reason: Literal["expired", "refused"]
    error: str


@dataclass(slots=True)
class Outcome:
    """What became of the batches given to `count`."""

    counted_rates: int = 0
    repeated_rates: int = 0
    """Rates of batches or keys counted before."""
    calls: int = 0
    dead: list[Dead] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """What one service has counted so far: the sum of its outcomes."""

    counted_rates: int = 0
    repeated_rates: int = 0
    calls: int = 0

    def add(self, outcome: Outcome) -> None:
        self.counted_rates += outcome.counted_rates
        self.repeated_rates += outcome.repeated_rates
        self.calls += outcome.calls

    def metrics(self) -> Iterator[Metric]:
        yield counter("fanrate_counted_rates", "Rates counted", self.counted_rates)
        yield counter("fanrate_repeated_rates", "Rates that came again and were not counted again", self.repeated_rates)
        yield counter("fanrate_store_calls", "Folds offered to the store", self.calls)


async def count(store: Store, batches: Iterable[Batch]) -> Outcome:
    """Count each batch once, whatever was counted before; raises StoreUnavailable, after which the same batches may be
    given again.

    A dead batch is only named, in `Outcome.dead`: the caller writes its dead letter, then calls `Store.settle`.
    """
    outcome = Outcome()
    given = list(batches)
    unique = without_doubles(given)
    outcome.repeated_rates = _rates(given) - _rates(unique)
    for run in cut(unique, max_subjects=MAX_SUBJECTS_PER_CALL, max_bytes=MAX_BYTES_PER_CALL):
        await _count_run(store, run, outcome)
    return outcome


async def _count_run(store: Store, run: list[Batch], outcome: Outcome) -> None:
    try:
        await _offer(store, run, outcome)
    except StoreRefused as exc:
        if len(run) == 1:
            outcome.dead.append(Dead(run[0], "refused", str(exc)))
            return
        half = len(run) // 2
        await _count_run(store, run[:half], outcome)
        await _count_run(store, run[half:], outcome)


async def _offer(store: Store, run: list[Batch], outcome: Outcome) -> None:
    known_keys: frozenset[str] = frozenset()
    while run:
        merged = fold(run, known_keys)
        answer = await store.apply(merged)
        outcome.calls += 1
        if answer.written:
            counted = merged.rates
            outcome.counted_rates += counted
            outcome.repeated_rates += _rates(run) - counted
            return
        known_keys |= answer.known_keys
        for batch in run:
            if (batch.producer, batch.sequence) in answer.expired:
                outcome.dead.append(Dead(batch, "expired", "older than the horizon"))
            elif (batch.producer, batch.sequence) in answer.known:
                outcome.repeated_rates += len(batch.rates)
        gone = answer.known | answer.expired
        run = [batch for batch in run if (batch.producer, batch.sequence) not in gone]


def _rates(batches: Iterable[Batch]) -> int:
    return sum(len(batch.rates) for batch in batches)
