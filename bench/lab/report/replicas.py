"""What further replicas do, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bench.lab import noise
from bench.lab.axes import BROKER_NAMES
from bench.lab.figures import COST, RPS
from bench.lab.report.ranking import shared_noise, turns
from bench.lab.report.text import listed, times
from bench.lab.rows import FANRATE, Row


def replicas(rows: Sequence[Row]) -> list[str]:
    """What further replicas on the same machine do, of the set-ups that were measured with one and with several."""
    told: dict[tuple[str, int, int], list[str]] = {}
    for text, figure in _REPLICAS.items():
        shared = shared_noise(rows, figure)
        for few, many in _grown(rows):
            a, b = turns(few, figure), turns(many, figure)
            if a and b:
                difference = noise.difference(a, b, shared)
                said = "the same, within noise" if difference.call == "equal" else times(1 + difference.change)
                key = (text, many.setup.replicas, few.setup.replicas)
                if difference.call != "unknown":
                    told.setdefault(key, []).append(f"{BROKER_NAMES[few.setup.broker]} {said}")
    return [text.format(many=many, few=few, told=listed(said)) for (text, many, few), said in told.items()]


_REPLICAS: Final = {
    "With {many} replicas a rate costs so many times the CPU time that it costs with {few}: {told}.": COST,
    "With {many} replicas so many times the rates/s of {few} are confirmed: {told}.": RPS,
}


def _grown(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Of each broker the plainest set-up with fewest replicas, and the same with most."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        if row.setup.system == FANRATE and row.measured and row.setup.dispatch == "group":
            setup = row.setup
            what = (setup.broker, setup.durability, setup.settings, row.workload, row.machine, row.build)
            found.setdefault(what, []).append(row)
    pairs = []
    for several in found.values():
        ordered = sorted(several, key=lambda row: row.setup.replicas)
        if ordered[0].setup.replicas < ordered[-1].setup.replicas:
            pairs.append((ordered[0], ordered[-1]))
    return pairs
