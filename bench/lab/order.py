"""In which order what is measured: rounds, each over all setups in a random order of its own, one setup up at a time.

Rows of one setup share a visit: it is brought up once a round for all its workloads. So no row always has the same
neighbour, or the same hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from bench.lab.document import Setup
from bench.lab.experiment import Row

UP_AND_DOWN_S: Final = 9.0
PEAK_EXTRA_S: Final = 7.0
"""Beyond the load itself: warming up, and counting what is left."""
TAIL_EXTRA_S: Final = 2.5


@dataclass(frozen=True, slots=True)
class Visit:
    """One setup, up once, for `rows`; `turn` counts from 1."""

    setup: Setup
    rows: Sequence[Row]
    turn: int

    @property
    def lasts_s(self) -> float:
        """About, to tell the time that is left."""
        return UP_AND_DOWN_S + sum(row_lasts_s(row) for row in self.rows)


def row_lasts_s(row: Row) -> float:
    workload = row.workload
    return workload.seconds + PEAK_EXTRA_S + len(workload.offered) * (workload.seconds + TAIL_EXTRA_S)


def visits(rows: Sequence[Row], repeat: int, seed: str) -> list[Visit]:
    """All of `repeat` rounds; the same `seed` gives the same order."""
    chance = Random(seed)
    by_setup: dict[Setup, list[Row]] = {}
    for row in rows:
        by_setup.setdefault(row.setup, []).append(row)
    found: list[Visit] = []
    for turn in range(1, repeat + 1):
        setups = list(by_setup)
        chance.shuffle(setups)
        found += [Visit(setup, chance.sample(by_setup[setup], len(by_setup[setup])), turn) for setup in setups]
    return found
