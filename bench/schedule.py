"""When the requests of an open loop are due. Pure: the same schedule is the same times, whatever the answers do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

Arrivals = Literal["even", "poisson"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """`per_s` requests a second for `seconds`. `even` ones come at equal distances; `poisson` ones as from many clients
    that know nothing of each other: gaps are exponential, by `seed`, and their number is `per_s` times `seconds` only
    on average."""

    per_s: float
    seconds: float
    arrivals: Arrivals = "even"
    seed: int = 0

    def times(self) -> Iterator[float]:
        """Seconds from the start at which a request is due, ascending, all before `seconds`."""
        return self._even() if self.arrivals == "even" else self._poisson()

    def _even(self) -> Iterator[float]:
        per_s = self.per_s
        for number in range(int(per_s * self.seconds)):
            yield number / per_s

    def _poisson(self) -> Iterator[float]:
        gap, per_s, seconds = Random(self.seed).expovariate, self.per_s, self.seconds
        at = gap(per_s)
        while at < seconds:
            yield at
            at += gap(per_s)
