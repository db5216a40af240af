"""The fold: many batches merged into one set of additions, so that the store is called once for hundreds of them.

Pure: no I/O, no clock. `core.store` says what a store does with a fold, `core.counting` when one is made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain

from core.batches import Batch
from core.rates import Rate

ALL = "*"
"""The name under which the totals of all subjects are folded; no subject can have it."""

MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Fold:
    """What `batches` and `keys` add, all of one shard.

    `counts`: subject -> rate -> how many; `minutes`: minute since the Unix epoch (by the batch's `at`) -> subject ->
    how many. Both hold the totals under ALL. `keys` are the identities whose rates are in the counts.
    """

    shard: int
    batches: Sequence[Batch]
    keys: Sequence[str] = ()
    counts: dict[str, dict[int, int]] = field(default_factory=dict)
    minutes: dict[int, dict[str, int]] = field(default_factory=dict)

    @property
    def rates(self) -> int:
        """How many rates the fold adds."""
        return sum(self.counts.get(ALL, {}).values())


def fold(batches: Sequence[Batch], known_keys: AbstractSet[str] = frozenset()) -> Fold:
    """Merge `batches`, which are of one shard and no two of one identity.

    Rates under a key in `known_keys`, or under one that an earlier batch of the same call has, are left out.
    """
    keys: dict[str, None] = {}
    counts: defaultdict[str, dict[int, int]] = defaultdict(dict)
    minutes: dict[int, dict[str, int]] = {}
    for minute, members in _by_minute(batches).items():
        pairs = Counter(chain.from_iterable(_rates(batch, known_keys, keys) for batch in members))
        in_minute: defaultdict[str, int] = defaultdict(int)
        totals: defaultdict[int, int] = defaultdict(int)
        for (subject, rate), count in pairs.items():
            of_subject = counts[subject]
            of_subject[rate] = of_subject.get(rate, 0) + count
            in_minute[subject] += count
            totals[rate] += count
        if not pairs:
            continue
        in_minute[ALL] = sum(totals.values())
        minutes[minute] = in_minute
        of_all = counts[ALL]
        for rate, count in totals.items():
            of_all[rate] = of_all.get(rate, 0) + count
    return Fold(batches[0].shard, batches, tuple(keys), counts, minutes)


def cut(batches: Iterable[Batch], *, max_subjects: int, max_bytes: int) -> Iterator[list[Batch]]:
    """Cut along batches into runs of one shard, each within the bounds or a lone batch.

    `max_subjects` bounds the distinct subjects of a run, `max_bytes` an estimate of what the store's call will hold.
    """
    for members in _by_shard(batches).values():
        run: list[Batch] = []
        rates: set[Rate] = set()
        subjects: set[str] = set()
        size_bytes = 0
        for batch in members:
            new_rates = set(batch.rates) - rates
            new_subjects = {subject for subject, _ in new_rates} - subjects
            batch_bytes = _call_bytes(batch, len(new_rates), new_subjects)
            if run and (len(subjects) + len(new_subjects) > max_subjects or size_bytes + batch_bytes > max_bytes):
                yield run
                run, rates, subjects, size_bytes = [], set(), set(), 0
                new_rates, new_subjects = set(batch.rates), {subject for subject, _ in batch.rates}
                batch_bytes = _call_bytes(batch, len(new_rates), new_subjects)
            run.append(batch)
            rates |= new_rates
            subjects |= new_subjects
            size_bytes += batch_bytes
        yield run


def _call_bytes(batch: Batch, new_rates: int, new_subjects: AbstractSet[str]) -> int:
    """About what one batch adds to a store's call: rates and subjects that it shares with the others add nothing."""
    return 256 + 64 * len(batch.keys) + 24 * new_rates + sum(128 + 3 * len(subject) for subject in new_subjects)


def without_doubles(batches: Iterable[Batch]) -> list[Batch]:
    """One batch of each identity, in the order of their first appearance."""
    return list({(batch.producer, batch.sequence): batch for batch in batches}.values())


def _rates(batch: Batch, known: AbstractSet[str], taken: dict[str, None]) -> Iterable[Rate]:
    if not batch.keys:
        return batch.rates
    parts: list[Sequence[Rate]] = []
    end = 0
    for key in batch.keys:
        parts.append(batch.rates[end : key.first])
        end = key.first + key.count
        if key.identity not in known and key.identity not in taken:
            taken[key.identity] = None
            parts.append(batch.rates[key.first : end])
    parts.append(batch.rates[end:])
    return chain.from_iterable(parts)


def _by_minute(batches: Iterable[Batch]) -> dict[int, list[Batch]]:
    groups: defaultdict[int, list[Batch]] = defaultdict(list)
    for batch in batches:
        groups[int(batch.at // MINUTE_S)].append(batch)
    return groups


def _by_shard(batches: Iterable[Batch]) -> dict[int, list[Batch]]:
    groups: defaultdict[int, list[Batch]] = defaultdict(list)
    for batch in batches:
        groups[batch.shard].append(batch)
    return groups
