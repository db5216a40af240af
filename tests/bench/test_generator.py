"""The bench of the generator itself. Whether it meets its bar is for an idle machine to say."""

from __future__ import annotations

import pytest

from bench import generator
from bench.generator import RATE, Carried
from bench.load import OpenLoopReport


async def test_it_measures_itself() -> None:
    carried = await generator.measure(0.3)
    free, paced = carried.free, carried.paced
    assert set(free.statuses) == set(paced.statuses) == {200}
    assert paced.scheduled == RATE * 0.3
    assert free.confirmed == free.scheduled > generator.CONNECTIONS
    assert paced.confirmed == paced.scheduled - paced.unsent == paced.lateness.count - paced.unsent
    assert carried.per_core_s == pytest.approx(paced.sent / paced.cpu_s)
    full, scheduled, verdict = generator.lines(carried)
    assert full.startswith(f"at full speed, 64 connections: {free.confirmed_per_s:,.0f} requests/s, ")
    assert f"{paced.cpu_share:.0%} of a core; itself late by " in scheduled
    assert f"one core carries {carried.per_core_s:,.0f} requests/s" in verdict


@pytest.mark.parametrize(
    ("cpu_s", "unsent", "met", "told"),
    [(0.9, 0, True, "met"), (1.1, 0, False, "MISSED"), (0.9, 1, False, "NOT SHOWN, it fell behind 3 times")],
)
def test_the_verdict(cpu_s: float, unsent: int, met: bool, told: str) -> None:
    paced = OpenLoopReport(scheduled=RATE + unsent, unsent=unsent, cpu_s=cpu_s)
    carried = Carried(OpenLoopReport(), paced)
    assert carried.met is met
    assert told in generator.lines(carried)[-1]
    assert generator.told(carried)["met"] is met
