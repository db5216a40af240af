"""The bench of the generator itself. Whether it meets its bar is for an idle machine to say."""

from __future__ import annotations

import pytest
import uvloop

from bench import generator
from bench.generator import RATE, Carried
from bench.ledger import Ledger
from bench.load import OpenLoopReport
from bench.open_loop import open_loop
from bench.schedule import Schedule


async def test_it_measures_itself() -> None:
    carried = await generator.measure(0.3)
    free, paced = carried.free, carried.paced
    assert set(free.statuses) == set(paced.statuses) == {200}
    assert paced.scheduled == RATE * 0.3
    assert 0 < paced.cpu_share < 2
    assert carried.per_core_s == pytest.approx(paced.sent / paced.cpu_s)
    assert len(generator.lines(carried)) == 3


def test_a_request_costs_little() -> None:
    """Twice the bar, for a machine on which other tests run, on the event loop that benches use."""
    report = uvloop.run(_paced())
    assert report.confirmed == 5000
    assert report.cpu_s / report.sent < 2 / RATE


async def _paced() -> OpenLoopReport:
    async with generator.do_nothing() as server:
        requests = generator.requests(server.address)
        return await open_loop([server.address], requests, Ledger(), Schedule(5000, 1), connections=64)


@pytest.mark.parametrize(
    ("cpu_s", "unsent", "met", "told"),
    [(0.9, 0, True, "met"), (1.1, 0, False, "MISSED"), (0.9, 1, False, "NOT SHOWN, it fell behind 3 times")],
)
def test_the_verdict(cpu_s: float, unsent: int, met: bool, told: str) -> None:
    paced = OpenLoopReport(scheduled=RATE + unsent, unsent=unsent, cpu_s=cpu_s)
    carried = Carried(OpenLoopReport(), paced)
    assert carried.met is met
    assert told in generator.lines(carried)[-1]
