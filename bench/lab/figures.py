"""The figures that rows are compared by: what each is, how it is read from a run, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from bench.lab.document import Run, Tail, Workload

HALF: Final = 0.5
"""Latency and freshness are told at the load nearest to this share of the peak."""
OWN: Final = "load"
"""The role of the generator: what it costs is no part of what a rate costs."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`of` gives None where a run does not have it."""

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    of: Callable[[Run], float | None]
    scheduled: bool = False
    """Taken of a load on a schedule."""


def told_share(workload: Workload) -> float | None:
    """The offered load at which latency is told; None without any."""
    return min(workload.offered, key=lambda share: (abs(share - HALF), share), default=None)


def told_tail(run: Run) -> Tail | None:
    """The load at that share, unless it is void."""
    return tail_at(run, told_share(run.workload))


def tail_at(run: Run, share: float | None) -> Tail | None:
    """None too where it is void."""
    return next((tail for tail in run.tails if tail.offered == share and not tail.void), None)


def cost(run: Run) -> float | None:
    """CPU microseconds that a rate costs at full load, over all roles but the generator."""
    if run.peak is None or not (spent := [us for role, us in run.peak.cpu_us_per_rate.items() if role != OWN]):
        return None
    return sum(spent)


def _rates_per_s(run: Run) -> float | None:
    return run.peak.rates_per_s if run.peak else None


def _rates_per_message(run: Run) -> float | None:
    return run.peak.rates_per_message if run.peak else None


def _memory(run: Run) -> float | None:
    held = [held_bytes for role, held_bytes in run.memory_peak_bytes.items() if role != OWN]
    return float(sum(held)) if held else None


def latency(percentile: str) -> Callable[[Run], float | None]:
    """In ms, from a schedule; never from a closed loop."""

    def of(run: Run) -> float | None:
        tail = told_tail(run)
        return tail.latency_ms.get(percentile) if tail else None

    return of


def freshness(percentile: str) -> Callable[[Run], float | None]:
    """In ms, from sending until visible in Redis."""

    def of(run: Run) -> float | None:
        tail = told_tail(run)
        return tail.freshness_ms.get(percentile) if tail else None

    return of


PERCENTILES: Final = ("p50", "p90", "p99", "p99.9")
COST: Final = Figure("cost", "CPU per rate", "µs", "lower", cost)
RPS: Final = Figure("rps", "confirmed rates/s at the peak", "/s", "higher", _rates_per_s)
LATENCY: Final = {
    name: Figure(name, f"{name} of a POST on a schedule", "ms", "lower", latency(name), scheduled=True)
    for name in PERCENTILES
}
FRESHNESS: Final = Figure(
    "freshness", "p99 from POST to visible in Redis", "ms", "lower", freshness("p99"), scheduled=True
)
MEMORY: Final = Figure("memory", "memory peak", "bytes", "lower", _memory)
RATES_PER_MESSAGE: Final = Figure("batch", "rates per broker message", "", "higher", _rates_per_message)

FIGURES: Final[dict[str, Figure]] = {
    figure.name: figure for figure in (COST, RPS, *LATENCY.values(), FRESHNESS, MEMORY, RATES_PER_MESSAGE)
}
