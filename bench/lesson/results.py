"""What the rows of the lesson came to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from bench.ledger import Verdict
from bench.lesson.plan import Row
from bench.wrk import Peak

_MEAN: Final = re.compile(r"^\s+Latency\s+([0-9.]+)(us|ms|s|m)\s", re.MULTILINE)
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Taken:
    """One row: what wrk printed, what that comes to, and what was counted; all was counted `counted_s` after the last
    answer. `stolen` is the share of the processors' time that the machine's host gave to others meanwhile."""

    row: Row
    output: str
    peak: Peak
    verdict: Verdict
    counted_s: float
    command: str
    stolen: float = 0.0

    @property
    def block(self) -> str:
        """What wrk prints by itself, without our script's lines."""
        return self.output.partition("\n\n")[0].rstrip()

    @property
    def mean_s(self) -> float | None:
        """The mean that wrk prints: a closed loop's, and corrected. See the page."""
        found = _MEAN.search(self.output)
        return float(found[1]) * _SECONDS[found[2]] if found else None


@dataclass(slots=True)
class Results:
    """Filled row by row. `skipped` and `failed` say why something is missing, by what it is."""

    seconds: float
    taken: dict[str, Taken] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def fine(self) -> bool:
        """Whether all that could be measured was, and every ledger closed."""
        clean = all(taken.verdict.clean for taken in self.taken.values())
        return clean and not self.failed and not self.interrupted

    @property
    def stolen(self) -> tuple[float, float]:
        """The mean and the largest share of processor time that was stolen from a row."""
        shares = [taken.stolen for taken in self.taken.values()] or [0.0]
        return sum(shares) / len(shares), max(shares)

    def per_s(self, key: str) -> float | None:
        """Requests a second of one row, if it was measured."""
        return self.taken[key].peak.per_s if key in self.taken else None

    def ratio(self, key: str, other: str) -> float | None:
        """Requests a second of one row by those of another."""
        one, two = self.per_s(key), self.per_s(other)
        return one / two if one is not None and two else None
