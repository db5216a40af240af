"""A running service, measured from outside: how much it takes, how long its answers take, and whether all was counted.

Without a rate, full speed finds how much it takes; then a schedule at half of that tells latencies. Both run under
subjects of their own, so other traffic does not disturb the ledger, but slows both down: figures are those of this
machine, generator included, as it is just now.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.client import Address
from bench.ledger import Ledger, Verdict
from bench.load import OpenLoopReport, Request, rate_request
from bench.open_loop import full_speed, open_loop
from bench.progress import rates_bar, time_bar
from bench.reading import PATIENCE_S, Reader, UnreadableService, await_counted
from bench.schedule import Schedule
from core.errors import FanrateError

CONNECTIONS = 64
SECONDS = 30.0
FULL_SPEED_S = 10.0
"""How long full speed lasts at most: what it finds is steady long before."""
SUBJECTS = 100
RATES = range(1, 6)
"""Few and small, as a service with other bounds takes them too."""
INTERRUPTED_S = 5.0
"""How long the counting may stand still after an interrupt."""


class MeasureFailed(FanrateError):
    """There is nothing to measure."""


@dataclass(slots=True)
class Measured:
    """What there is so far. `peak` is empty where the rate was given; `verdict` is None until all was counted."""

    url: str
    connections: int
    peak: OpenLoopReport = field(default_factory=OpenLoopReport)
    per_s: float = 0.0
    paced: OpenLoopReport = field(default_factory=OpenLoopReport)
    ledger: Ledger = field(default_factory=Ledger)
    verdict: Verdict | None = None
    trouble: str = ""
    """Why nobody could tell what was counted."""
    interrupted: bool = False

    @property
    def fine(self) -> bool:
        """Whether the ledger is closed and the latencies are good."""
        closed = self.verdict is not None and self.verdict.clean
        return closed and self.paced.confirmed > 0 and not self.paced.void


async def measure(measured: Measured, *, rate: float | None, seconds: float, patience_s: float = PATIENCE_S) -> None:
    """Fill `measured`. Cancelled while it loads, it still asks what was counted of what was confirmed so far.

    Raises MeasureFailed if no Fanrate answers at the URL or it confirms nothing, and WrongAddress.
    """
    address = Address.of(measured.url)
    reader = Reader(address)
    try:
        try:
            before = await reader.read([])
        except UnreadableService as exc:
            raise MeasureFailed(f"no Fanrate can be read at {measured.url}: {exc}") from exc
        try:
            await _load(address, measured, rate, seconds)
        except asyncio.CancelledError:
            _go_on_after_an_interrupt()
            measured.interrupted, patience_s = True, min(patience_s, INTERRUPTED_S)
        try:
            with rates_bar("counted", measured.ledger.confirmed_rates) as bar:
                measured.verdict = await await_counted(
                    reader,
                    measured.ledger,
                    before,
                    patience_s=patience_s,
                    counted=lambda rates: bar.update(max(0, rates - bar.n)),
                )
        except UnreadableService as exc:
            measured.trouble = str(exc)
    finally:
        reader.close()


async def _load(address: Address, measured: Measured, rate: float | None, seconds: float) -> None:
    requests, connections, ledger = _requests(address), measured.connections, measured.ledger
    if rate is None:
        peak_s = min(seconds, FULL_SPEED_S)
        async with time_bar("full speed", peak_s, measured.peak):
            await full_speed([address], requests, ledger, seconds=peak_s, connections=connections, report=measured.peak)
        if not measured.peak.confirmed:
            raise MeasureFailed(f"{measured.url} confirmed nothing: {measured.peak.outcomes}")
        rate = measured.peak.confirmed_per_s / 2
    measured.per_s = rate
    async with time_bar(f"{rate:,.0f}/s", seconds, measured.paced):
        await open_loop(
            [address], requests, ledger, Schedule(rate, seconds), connections=connections, report=measured.paced
        )
    if not ledger.confirmed_rates:
        raise MeasureFailed(f"{measured.url} confirmed nothing: {measured.paced.outcomes}")


def _go_on_after_an_interrupt() -> None:
    """Ctrl-C cancels the program's one task (asyncio.Runner); the next one ends it."""
    if task := asyncio.current_task():
        task.uncancel()


def _requests(address: Address) -> Iterator[Request]:
    run = secrets.token_hex(4)
    rates = [(f"measure-{run}-{subject}", rate) for subject in range(SUBJECTS) for rate in RATES]
    return itertools.cycle([rate_request(address, rate) for rate in rates])


def lines(measured: Measured) -> list[str]:
    """The result for people, as far as there is one; the last line is the verdict."""
    peak, paced = measured.peak, measured.paced
    told = ["interrupted: what follows is of what was measured until then"] if measured.interrupted else []
    if peak.confirmed:
        told.append(
            f"full speed, {measured.connections} connections: {peak.confirmed_per_s:,.0f} rates/s confirmed "
            f"(closed loop: no latencies); {peak.outcomes}"
        )
    if paced.scheduled:
        told.append(f"on a schedule of {measured.per_s:,.0f}/s: {paced.confirmed_per_s:,.0f}/s; {paced.outcomes}")
        told.append(_latencies(measured))
        late_ms = paced.lateness.percentile_s(99) * 1000
        told.append(
            f"the generator took {paced.cpu_share:.0%} of a core, and was itself late by {late_ms:.2f} ms (p99), which "
            "latencies include"
        )
    verdict = measured.verdict
    if verdict is None:
        told.append(f"{measured.ledger.confirmed_rates} rates confirmed, not held against what was counted")
        return [*told, measured.trouble] if measured.trouble else told
    told.append(f"{verdict.confirmed} rates confirmed, {verdict.counted} counted")
    return [*told, *verdict.lines(), str(verdict)]


def _latencies(measured: Measured) -> str:
    paced = measured.paced
    if paced.void:
        return f"latencies are void: {paced.void}{_advice(paced)}"
    shown = ", ".join(f"{name} {ms:.2f}" for name, ms in paced.latency.told_ms().items())
    return f"from when each was due to its answer, ms: {shown}"


def _advice(paced: OpenLoopReport) -> str:
    if not paced.fell_behind:
        return ""
    return "; lower --rate" if paced.late else "; lower --rate, or raise --connections"
