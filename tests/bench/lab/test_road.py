"""What a run is worth, by its figures alone."""

from __future__ import annotations

import msgspec
import pytest

from bench.lab.document import Books, Peak, Tail
from bench.lab.road import Found, agree
from bench.lab.sitting import _judged
from tests.bench.lab.documents import Maker, brokers

RUN = brokers(Maker(), turns=1, names=["nats"]).made[0]


@pytest.mark.parametrize(
    ("told", "agreed"),
    [([], False), ([100.0], False), ([100.0, 96.0], True), ([100.0, 94.0], False), ([10.0, 100.0, 104.0], True)],
)
def test_warm_up_ends_when_the_last_two_loads_agree(told: list[float], agreed: bool) -> None:
    assert agree(told) is agreed


def _found(*, failed: int = 0, loss: int = 0, dup: int = 0) -> Found:
    assert RUN.peak is not None
    peak: Peak = msgspec.structs.replace(RUN.peak, failed=failed)
    return Found(peak=peak, ledger=Books(sent=10, confirmed=10, counted=10, loss=loss, dup=dup))


def test_an_open_ledger_fails_a_run_and_many_refusals_void_it() -> None:
    assert RUN.peak is not None
    assert _judged(_found()) == ("measured", "")
    assert _judged(_found(failed=RUN.peak.rates // 200))[0] == "measured"
    assert _judged(_found(failed=RUN.peak.rates // 50))[0] == "void"
    assert _judged(_found(loss=1)) == ("failed", "the ledger is open: LOSS 1 DUP 0")
    assert _judged(_found(dup=2, failed=RUN.peak.rates))[0] == "failed"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"fell_behind": True}, "generator"),
        ({"unsent": 1}, "more was offered"),
        ({"failed": 20, "confirmed": 9980}, "not confirmed"),
        ({"failed": 5, "confirmed": 9995}, ""),
    ],
)
def test_latencies_of_a_load_that_was_not_kept_or_answered_are_void(change: dict[str, object], why: str) -> None:
    tail: Tail = msgspec.structs.replace(RUN.tails[0], **change)
    assert why in tail.void
    assert bool(why) is bool(tail.void)
