"""What a measure is asked for and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.ledger import Verdict

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

    @property
    def bound(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:,g}"

    @property
    def measured(self) -> str:
        return "void" if self.value is None else figure(self.value)

    @property
    def outcome(self) -> str:
        return "void" if self.value is None else "met" if self.met else "MISSED"

    def __str__(self) -> str:
        bound, measured = (f"{text} {self.unit}".rstrip() for text in (self.bound, self.measured))
        return f"{self.name:<62} {bound:>18}  {measured:>18}  {self.outcome}"


@dataclass(slots=True)
class Measured:
    """The answer of one measure. `samples` hold what each repetition gave, as they go into the run's file."""

    measure: str
    bars: list[Bar]
    samples: list[dict[str, object]]
    verdict: Verdict
    commands: list[str] = field(default_factory=list)
    profiles: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return self.verdict.clean and all(bar.met for bar in self.bars)


def figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
