"""What further replicas do, in sentences.

Only what differs in the number of replicas alone is compared. One exception: a balancer is seldom put before a single
replica, so where it was not, a replica without one is the yardstick, and the sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bench.lab import noise
from bench.lab.axes import AXES, BROKER_NAMES, drop, label, varying
from bench.lab.document import FANRATE
from bench.lab.figures import COST, RPS
from bench.lab.report.ranking import shared_noise, turns
from bench.lab.report.text import listed, times
from bench.lab.rows import Row


def replicas(rows: Sequence[Row]) -> list[str]:
    """What further replicas on the same machine do, of the set-ups that were measured with one and with several."""
    told: dict[tuple[str, str, str], list[str]] = {}
    pairs = grown(rows)
    for text, figure in _REPLICAS.items():
        shared = shared_noise(rows, figure)
        for few, many in pairs:
            a, b = turns(few, figure), turns(many, figure)
            if a and b:
                difference = noise.difference(a, b, shared)
                said = "the same, within noise" if difference.call == "equal" else times(1 + difference.change)
                key = (text, *_sides(few, many))
                if difference.call != "unknown":
                    told.setdefault(key, []).append(f"{_name(many, pairs)} {said}")
    return [text.format(many=many, few=few, told=listed(said)) for (text, many, few), said in told.items()]


_REPLICAS: Final = {
    "With {many} a rate costs so many times the CPU time that it costs with {few}: {told}.": COST,
    "With {many} so many times the rates/s of {few} are confirmed: {told}.": RPS,
}
_YARDSTICK: Final = "none"
"""The balancer of a single replica that stands for any."""


def _sides(few: Row, many: Row) -> tuple[str, str]:
    """How many replicas each has, and behind what where that differs."""
    told = f"{many.setup.replicas} replicas"
    if few.setup.balancer == many.setup.balancer:
        return told, str(few.setup.replicas)
    return f"{told} behind {many.setup.balancer}", f"{few.setup.replicas} without a balancer"


def _name(many: Row, pairs: Sequence[tuple[Row, Row]]) -> str:
    """The broker, and what tells its pairs apart."""
    broker = many.setup.broker
    own = [row for _, row in pairs if row.setup.broker == broker]
    axes = drop(varying(own), "replicas")
    return BROKER_NAMES[broker] + (f" ({label(many, axes)})" if axes else "")


def grown(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Of each set-up with DISPATCH=group that with fewest replicas, and the same with most."""
    rest = drop(AXES, "replicas", "balancer")
    found: dict[object, list[Row]] = {}
    for row in rows:
        if row.setup.system == FANRATE and row.measured and row.setup.dispatch == "group":
            found.setdefault(tuple(axis.of(row) for axis in rest), []).append(row)
    return [pair for several in found.values() for pair in _pairs(several)]


def _pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Of rows that differ in replicas and balancer alone."""
    balancers: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.setup.replicas):
        balancers.setdefault(row.setup.balancer, []).append(row)
    single = [row for row in balancers.get(_YARDSTICK, []) if row.setup.replicas == 1]
    pairs = []
    for several in balancers.values():
        first = [several[0]] if len(several) > 1 else single
        pairs += [(few, several[-1]) for few in first if few.setup.replicas < several[-1].setup.replicas]
    return pairs
