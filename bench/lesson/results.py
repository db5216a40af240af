"""What the rows of the lesson came to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.ledger import Verdict
from bench.lesson.plan import Row, Stop
from bench.wrk import Peak

_MEAN: Final = re.compile(r"^\s+Latency\s+([0-9.]+)(us|ms|s|m)\s", re.MULTILINE)
_MOST_REFUSED: Final = 0.01
"""The largest share of requests that may not have been answered 200 in a row that stands."""
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Taken:
    """One row: what wrk printed, what that comes to, and what was counted; all was counted `counted_s` after the last
    answer. `stolen` is the share of the processors' time that the machine's host gave to others meanwhile; `died` are
    the servers that did so, whether they came back or not."""

    row: Row
    output: str
    peak: Peak
    verdict: Verdict
    counted_s: float
    command: str
    stolen: float = 0.0
    died: Sequence[str] = ()

    @property
    def told(self) -> str:
        """The ledger, and the requests that were not answered 200, if there are any."""
        refused = self.peak.failed
        return f"{self.verdict}; {refused} not answered 200" if refused else str(self.verdict)

    @property
    def trouble(self) -> str:
        """Why its figure is none; empty if it is one. An open ledger stands beside its figure."""
        if self.died:
            return f"{', '.join(self.died)} died meanwhile; {self.told}"
        tried = self.peak.requests + self.peak.failed - self.peak.not_200
        if self.peak.failed > tried * _MOST_REFUSED:
            return f"{self.peak.failed} of {tried} requests were not answered 200; {self.verdict}"
        return ""

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

    def take(self, taken: Taken) -> None:
        """A row that was measured; one whose figure is none has failed."""
        if taken.trouble:
            self.failed[taken.row.title] = taken.trouble
        else:
            self.taken[taken.row.key] = taken

    def fail(self, stop: Stop, reason: str) -> None:
        """What ended `stop`: it fails the rows that are missing, or was after the last of them."""
        left = [row.title for row in stop.rows if row.key not in self.taken and row.title not in self.failed]
        self.failed |= dict.fromkeys(left or [f"{stop.rows[-1].title}, at the end"], reason)

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
