"""The ledger finds what it is fed."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.ledger import Fault, Finding, Ledger, compare_totals
from core.rates import Rate
from core.store import Summary

SENT: list[Rate] = [("film-1", 5), ("film-1", 5), ("film-1", 7), ("film-2", 100)]


def summaries(*rates: Rate) -> dict[str, Summary]:
    """What a service shows that counted exactly these."""
    subjects = {subject for subject, _ in rates}
    return {name: _summary([rate for subject, rate in rates if subject == name]) for name in subjects}


def _summary(rates: list[int]) -> Summary:
    return Summary(len(rates), sum(rates), dict(Counter(rates)))


@pytest.fixture
def ledger() -> Ledger:
    """All of SENT was sent and answered 200."""
    ledger = Ledger()
    ledger.send(SENT)
    ledger.confirm(SENT)
    return ledger


def test_all_counted_is_clean(ledger: Ledger) -> None:
    verdict = ledger.compare({}, summaries(*SENT))
    assert verdict.clean
    assert str(verdict) == "LOSS 0 DUP 0"
    assert (verdict.sent, verdict.confirmed, verdict.counted) == (4, 4, 4)


def test_growth_counts_not_what_was_there(ledger: Ledger) -> None:
    there: list[Rate] = [("film-1", 5), ("film-2", 3)]
    assert ledger.compare(summaries(*there), summaries(*there, *SENT)).clean


def test_a_loss(ledger: Ledger) -> None:
    verdict = ledger.compare({}, summaries(*SENT[1:]))
    assert verdict.findings == (Finding(Fault.LOSS, "film-1", 5, 1),)
    assert str(verdict) == "LOSS 1 DUP 0"


def test_a_lost_subject(ledger: Ledger) -> None:
    assert ledger.compare({}, summaries(*SENT[:3])).findings == (Finding(Fault.LOSS, "film-2", 100, 1),)


def test_a_double(ledger: Ledger) -> None:
    verdict = ledger.compare({}, summaries(*SENT, ("film-1", 7)))
    assert verdict.findings == (Finding(Fault.DOUBLE, "film-1", 7, 1),)
    assert str(verdict) == "LOSS 0 DUP 1"


@pytest.mark.parametrize("phantom", [("film-1", 8), ("never-sent", 5)])
def test_a_phantom(ledger: Ledger, phantom: Rate) -> None:
    verdict = ledger.compare({}, summaries(*SENT, phantom))
    assert verdict.findings == (Finding(Fault.PHANTOM, *phantom, 1),)
    assert str(verdict) == "LOSS 0 DUP 1"


def test_a_rate_counted_as_another_is_a_loss_and_a_phantom(ledger: Ledger) -> None:
    verdict = ledger.compare({}, summaries(*SENT[:3], ("film-2", 99)))
    assert {found.fault for found in verdict.findings} == {Fault.LOSS, Fault.PHANTOM}
    assert (verdict.loss, verdict.dup) == (1, 1)


def test_a_loss_and_a_double_do_not_cancel_out(ledger: Ledger) -> None:
    verdict = ledger.compare({}, summaries(*SENT[1:], ("film-2", 100)))
    assert (verdict.loss, verdict.dup) == (1, 1)


def test_a_vanished_count_is_a_loss(ledger: Ledger) -> None:
    verdict = ledger.compare(summaries(("film-3", 1)), summaries(*SENT))
    assert verdict.findings == (Finding(Fault.LOSS, "film-3", 1, 1),)


@pytest.mark.parametrize("wrong", [Summary(2, 100, {100: 1}), Summary(1, 99, {100: 1})])
def test_a_count_or_sum_that_does_not_fit_its_distribution(ledger: Ledger, wrong: Summary) -> None:
    verdict = ledger.compare({}, {**summaries(*SENT), "film-2": wrong})
    assert verdict.findings == (Finding(Fault.UNEVEN, "film-2", None, 1),)
    assert not verdict.clean


@pytest.mark.parametrize(("counted", "loss", "dup"), [(0, 1, 0), (1, 0, 0), (2, 0, 0), (3, 0, 1)])
def test_a_rate_of_unknown_outcome_may_count_once(counted: int, loss: int, dup: int) -> None:
    ledger = Ledger()
    ledger.send([("film-1", 5), ("film-1", 5)])
    ledger.confirm([("film-1", 5)])
    assert ledger.unknown_rates == 1
    verdict = ledger.compare({}, summaries(*[("film-1", 5)] * counted))
    assert (verdict.loss, verdict.dup) == (loss, dup)


def test_a_withdrawn_rate_may_not_count() -> None:
    ledger = Ledger()
    ledger.send([("film-1", 5)])
    ledger.withdraw([("film-1", 5)])
    assert ledger.compare({}, {}).clean
    assert ledger.compare({}, summaries(("film-1", 5))).findings == (Finding(Fault.PHANTOM, "film-1", 5, 1),)


def test_findings_are_listed_up_to_a_number(ledger: Ledger) -> None:
    lines = ledger.compare({}, {}).lines(most=2)
    assert lines == ["loss: 2 x film-1 rated 5", "loss: 1 x film-1 rated 7", "... and 1 more"]


@pytest.mark.parametrize(("counted", "told"), [(9, "LOSS 1 DUP 0"), (10, "LOSS 0 DUP 0"), (13, "LOSS 0 DUP 1")])
def test_totals_alone(counted: int, told: str) -> None:
    assert str(compare_totals(sent=12, confirmed=10, counted=counted)) == told
