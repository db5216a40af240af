"""What a measure is asked for and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.ledger import Verdict

Measure = Literal["post", "group", "fold", "fresh", "memory"]

CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` is the length of one load, `repeat` how often each is made; `quick` takes smaller amounts where an
    amount is measured. `profile`: write profiles of met bars too. `say` is told what runs now."""

    seconds: float = 5.0
    repeat: int = 3
    quick: bool = False
    profile: bool = False
    say: Callable[[str], None] = print


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound and what was measured; `value` is None when the run was void."""

    name: str
    unit: str
    limit: float
    at_most: bool
    value: float | None

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        bound = f"{'<=' if self.at_most else '>='} {self.limit:,g} {self.unit}".rstrip()
        value = "void" if self.value is None else f"{_figure(self.value)} {self.unit}".rstrip()
        return f"{self.name:<62} {bound:>18}  {value:>18}  {'met' if self.met else 'MISSED'}"


@dataclass(slots=True)
class Measured:
    """The answer of one measure. `samples` hold what each repetition gave, as they go into the run's file."""

    measure: Measure
    bars: list[Bar]
    samples: list[dict[str, object]]
    verdict: Verdict
    commands: list[str] = field(default_factory=list)
    profiles: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return self.verdict.clean and all(bar.met for bar in self.bars)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
