"""The ledger: what was sent, what was answered 200, and whether exactly that was counted.

Pure: `bench.load` writes it while it sends, `bench.reading` supplies what the service says it counted. Accounts are
kept per (subject, rate), so a rate counted under the wrong subject, or as another rate, is found too.

A rate answered 200 must be counted once. One that was sent and not answered 200 (503, a broken connection, no answer in
time) may be counted once or not at all. One re-sent under its Idempotency-Key is one rate, however often it was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from core.errors import FanrateError
from core.rates import Rate
from core.store import Summary

_NOTHING = Summary()


class Fault(StrEnum):
    LOSS = "loss"
    """Answered 200 and not counted."""
    DOUBLE = "double"
    """Counted more often than it was sent."""
    PHANTOM = "phantom"
    """Counted and never sent."""
    UNEVEN = "uneven"
    """A subject's count or sum does not follow from its distribution."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`amount` rates of one kind under one subject with one fault; `rate` is None where the subject as a whole is
    wrong."""

    fault: Fault
    subject: str
    rate: int | None
    amount: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ledger held against what was counted."""

    sent: int
    confirmed: int
    counted: int
    findings: tuple[Finding, ...]

    @property
    def loss(self) -> int:
        """Rates answered 200 and not counted."""
        return self._amount(Fault.LOSS)

    @property
    def dup(self) -> int:
        """Rates counted beyond what was sent, phantoms included."""
        return self._amount(Fault.DOUBLE) + self._amount(Fault.PHANTOM)

    @property
    def clean(self) -> bool:
        return not self.findings

    def __str__(self) -> str:
        return f"LOSS {self.loss} DUP {self.dup}"

    def lines(self, most: int = 10) -> list[str]:
        """The first `most` findings, one line each."""
        lines = [f"{found.fault}: {found.amount} x {_shown(found)}" for found in self.findings[:most]]
        if len(self.findings) > most:
            lines.append(f"... and {len(self.findings) - most} more")
        return lines

    def _amount(self, fault: Fault) -> int:
        return sum(found.amount for found in self.findings if found.fault is fault)


class LedgerOpen(FanrateError):
    """A run of which not exactly that was counted that was confirmed."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__("; ".join([str(verdict), *verdict.lines()]))


class Ledger:
    """What one run sent and what became of it, as far as the sender knows."""

    def __init__(self) -> None:
        self._sent: Counter[Rate] = Counter()
        self._confirmed: Counter[Rate] = Counter()

    def send(self, rates: Iterable[Rate], times: int = 1) -> None:
        """These leave now, or left so many times. Not called again for a re-send under the same key."""
        _add(self._sent, rates, times)

    def confirm(self, rates: Iterable[Rate], times: int = 1) -> None:
        """These were answered 200."""
        _add(self._confirmed, rates, times)

    def withdraw(self, rates: Iterable[Rate], times: int = 1) -> None:
        """These were sent and certainly not taken in: answered 400, or no connection could be opened."""
        _add(self._sent, rates, -times)

    @property
    def sent_rates(self) -> int:
        return self._sent.total()

    @property
    def confirmed_rates(self) -> int:
        return self._confirmed.total()

    @property
    def unknown_rates(self) -> int:
        """Sent, and neither answered 200 nor certainly refused."""
        return self.sent_rates - self.confirmed_rates

    @property
    def subjects(self) -> list[str]:
        """Every subject that was sent, sorted."""
        return sorted({subject for subject, _ in self._sent})

    def compare(self, before: Mapping[str, Summary], after: Mapping[str, Summary]) -> Verdict:
        """Hold the ledger against what was counted between two readings, by subject; a subject missing in a reading has
        nothing counted. Subjects in `after` that were never sent are examined too."""
        grown = _growth(before, after)
        findings = [*self._differences(grown), *_uneven(before, after)]
        return Verdict(self.sent_rates, self.confirmed_rates, grown.total(), tuple(findings))

    def _differences(self, grown: Counter[Rate]) -> Iterable[Finding]:
        for pair in sorted(self._sent.keys() | grown.keys()):
            subject, rate = pair
            counted, sent, confirmed = grown[pair], self._sent[pair], self._confirmed[pair]
            if counted < confirmed or counted < 0:
                yield Finding(Fault.LOSS, subject, rate, confirmed - counted)
            elif counted > sent:
                yield Finding(Fault.DOUBLE if sent else Fault.PHANTOM, subject, rate, counted - sent)


def compare_totals(*, sent: int, confirmed: int, counted: int) -> Verdict:
    """The ledger of a run of which only totals are known, as of one that wrk made."""
    findings: list[Finding] = []
    if counted < confirmed:
        findings.append(Finding(Fault.LOSS, "all subjects", None, confirmed - counted))
    if counted > sent:
        findings.append(Finding(Fault.DOUBLE, "all subjects", None, counted - sent))
    return Verdict(sent, confirmed, counted, tuple(findings))


def _add(counts: Counter[Rate], rates: Iterable[Rate], times: int) -> None:
    for rate in rates:
        counts[rate] += times


def _growth(before: Mapping[str, Summary], after: Mapping[str, Summary]) -> Counter[Rate]:
    grown: Counter[Rate] = Counter()
    for sign, reading in ((1, after), (-1, before)):
        for subject, summary in reading.items():
            for rate, count in summary.distribution.items():
                grown[subject, rate] += sign * count
    return grown


def _uneven(before: Mapping[str, Summary], after: Mapping[str, Summary]) -> Iterable[Finding]:
    for subject in sorted(before.keys() | after.keys()):
        old, new = before.get(subject, _NOTHING), after.get(subject, _NOTHING)
        count_off = _count_off(new) - _count_off(old)
        sum_off = _sum_off(new) - _sum_off(old)
        if count_off or sum_off:
            yield Finding(Fault.UNEVEN, subject, None, max(abs(count_off), 1))


def _count_off(summary: Summary) -> int:
    return summary.count - sum(summary.distribution.values())


def _sum_off(summary: Summary) -> int:
    return summary.sum - sum(rate * count for rate, count in summary.distribution.items())


def _shown(found: Finding) -> str:
    return found.subject if found.rate is None else f"{found.subject} rated {found.rate}"
