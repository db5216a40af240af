"""The store port: where rates are counted, exactly once. `store/` holds the implementations, one per kind of server.

One suite certifies every store, and holds it against a plain model under random schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from core.batches import Batch
from core.fold import Fold

LEASE_S = 1.5
"""How long a producer counts as alive after its last report."""
MINUTES_KEPT = 60


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to `Store.apply`: either nothing in the fold was known and all of it was written, or something was and
    nothing was written."""

    known: frozenset[tuple[str, int]] = frozenset()
    """Identities `(producer, sequence)` of batches counted before."""
    expired: frozenset[tuple[str, int]] = frozenset()
    """Identities of batches too old to know whether they were counted before."""
    known_keys: frozenset[str] = frozenset()
    """Idempotency identities counted before."""

    @property
    def written(self) -> bool:
        return not (self.known or self.expired or self.known_keys)


@dataclass(frozen=True, slots=True)
class Lease:
    """What one producer reports of itself; both totals only grow."""

    producer: str
    opened: int
    confirmed: int


@dataclass(frozen=True, slots=True)
class Opened:
    """Rates taken in and not settled: `opened` will still be counted, `abandoned` were taken in by a producer that is
    gone and are not known to have been confirmed."""

    opened: int
    abandoned: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What was counted under one subject, or under all of them."""

    count: int = 0
    sum: int = 0
    distribution: dict[int, int] = field(default_factory=dict)
    """rate -> how many, rates ascending."""
    minutes: dict[int, int] = field(default_factory=dict)
    """minute since the Unix epoch -> how many; the last MINUTES_KEPT by the store's clock, ascending, only those with
    rates."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One row of a list of subjects."""

    subject: str
    count: int
    mean: float


class Store(Protocol):
    """Counts folds and tells what was counted.

    Errors: every call raises StoreUnavailable while the store is away, unwilling or misconfigured, and may be called
    again. Only `apply` and `settle` raise StoreRefused. A call that raised has written nothing, or (StoreUnavailable
    after the connection broke, or because too few replicas have it) all of it: never a part.

    Concurrency: any number of calls at once, from any number of processes. Cancelling a call leaves it unknown whether
    it took place.

    Clocks: horizon, leases and minutes go by the store's own clock, never by the caller's.
    """

    async def start(self) -> None:
        """Make ready to connect. Returns at once whether or not the server is there; idempotent."""

    async def check(self) -> None:
        """Raise StoreUnavailable, saying why, unless the store is reachable and keeps what it acknowledges."""

    async def apply(self, fold: Fold) -> Applied:
        """Count the fold if nothing in it is known or expired; atomic.

        Writing marks every batch and key of the fold as known, adds its counts, and adds each batch's number of rates
        to its producer's `settled`, unless `settle` did so before. A batch is known for a horizon after the later of
        now and its `at`, a key for as long as the store was told. Known is tested before expired.
        """

    async def settle(self, batches: Sequence[Batch]) -> None:
        """Add the batches' rates to their producers' `settled` without counting them, once per batch whatever happens
        later: for batches that became dead letters."""

    async def lease(self, leases: Sequence[Lease]) -> None:
        """Report producers as alive for another LEASE_S. Totals never go down: the larger one stays."""

    async def opened(self) -> Opened:
        """Sum up over all producers."""

    async def totals(self) -> Summary:
        """All subjects together."""

    async def subject(self, name: str) -> Summary | None:
        """One subject; None if nothing was counted under it."""

    async def subjects(self, after: str, limit: int) -> list[Ranked]:
        """Up to `limit` subjects above `after`, in byte order."""

    async def top(self, n: int, by: Literal["count", "mean"]) -> list[Ranked]:
        """The `n` highest, descending; equals in reverse byte order."""

    async def close(self) -> None:
        """Release connections; idempotent. No call may follow."""
