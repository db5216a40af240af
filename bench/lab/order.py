"""In which order what is measured: rounds, each over all rows in a random order of its own, one setup up at a time.

Every run has servers of its own: what one leaves behind, in memory, in files, in a compiler's caches, would be the
next one's otherwise. And no row always has the same neighbour, or the same hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from bench.lab.experiment import Row

UP_AND_DOWN_S: Final = 9.0
PEAK_EXTRA_S: Final = 7.0
"""Beyond the load itself: warming up, and counting what is left."""
TAIL_EXTRA_S: Final = 2.5


@dataclass(frozen=True, slots=True)
class Turn:
    """One run to be made: `number` of its row, from 1."""

    row: Row
    number: int

    @property
    def lasts_s(self) -> float:
        """About, to tell the time that is left."""
        workload = self.row.workload
        tails_s = len(workload.offered) * (workload.seconds + TAIL_EXTRA_S)
        return UP_AND_DOWN_S + workload.seconds + PEAK_EXTRA_S + tails_s


def turns(rows: Sequence[Row], repeat: int, seed: str) -> list[Turn]:
    """All of `repeat` rounds; the same `seed` gives the same order."""
    chance = Random(seed)
    return [Turn(row, number) for number in range(1, repeat + 1) for row in chance.sample(list(rows), len(rows))]
