"""More users step by step, until a bound is broken: which load a service still answers in time.

Pure: it is told what each look found, and says how many users there should be. `bench/locustfile.py` does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LOOKS: Final = 4
"""How many looks at each step are judged; the first after a change of users is not."""
BROKEN: Final = 2
"""So many looks of one step beyond the bound, and the step is not a good one."""
FALL: Final = 4
"""A look with fewer answers than the last good one divided by this is beyond the bound: who waits is in no p99."""
HELD: Final = 3
"""How many looks the last good step is held at the end."""
MOST_STEPS: Final = 40


@dataclass(frozen=True, slots=True)
class Look:
    """What was answered in a short time: the 99th percentile of it, the answers a second, and what failed; and how long
    the oldest request waits that is not answered yet."""

    p99_s: float
    per_s: float
    failed: int = 0
    waiting_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """A step as a whole: its worst p99, or wait, within the bound, or of all its looks if it broke it."""

    users: int
    p99_s: float
    per_s: float

    def __str__(self) -> str:
        return f"{self.users} users, {self.per_s:,.0f} requests/s, p99 {self.p99_s * 1e3:.0f} ms"


class Steps:
    """Adds `more` users with each step, while p99 is at most `bound_s`, nobody waits for longer and nothing fails."""

    def __init__(self, more: int, bound_s: float) -> None:
        self.bound_s = bound_s
        self.good: Step | None = None
        """The last good step."""
        self.broken: Step | None = None
        """The step that was not."""
        self._more = more
        self._looks: list[Look] = []
        self._good: list[Look] = []
        self._beyond = 0
        self._least_per_s = 0.0
        self._fresh = True
        self._number = 1
        self._held = 0

    @property
    def users(self) -> int | None:
        """How many there should be now; None: it is over."""
        if self.broken is None:
            return self._more * self._number if self._number <= MOST_STEPS else None
        return self.good.users if self.good is not None and self._held < HELD else None

    def see(self, look: Look) -> None:
        """Take one look into account."""
        if self._fresh:
            self._fresh = False
        elif self.broken is not None:
            self._held += 1
        else:
            self._judge(look)

    def _judge(self, look: Look) -> None:
        if self._is_beyond(look):
            self._beyond += 1
        else:
            self._least_per_s = look.per_s / FALL
            self._good.append(look)
        self._looks.append(look)
        if self._beyond >= BROKEN:
            self.broken = self._step(self._looks)
        elif len(self._looks) >= LOOKS:
            self.good = self._step(self._good)
            self._number += 1
        else:
            return
        self._looks, self._good, self._beyond, self._fresh = [], [], 0, True

    def _is_beyond(self, look: Look) -> bool:
        return (
            self._worst_s(look) > self.bound_s or bool(look.failed) or look.per_s <= 0 or look.per_s < self._least_per_s
        )

    def _step(self, looks: Sequence[Look]) -> Step:
        worst_s = max(map(self._worst_s, looks))
        return Step(self._more * self._number, worst_s, sum(look.per_s for look in looks) / len(looks))

    def _worst_s(self, look: Look) -> float:
        """Who waits within the bound will be in a later look's percentile."""
        return max(look.p99_s, look.waiting_s) if look.waiting_s > self.bound_s else look.p99_s

    def lines(self) -> list[str]:
        """What was found, in words."""
        bound = f"{self.bound_s * 1e3:g} ms"
        if self.broken is None and self.good is None:
            return ["it ended before the first step was over"]
        if self.broken is None:
            return [f"p99 never went beyond {bound}: the last step was {self.good}"]
        broken = f"with {self.broken} it went beyond {bound}, failed or fell silent, in {BROKEN} looks"
        if self.good is None:
            return [f"no step was good: already {broken}"]
        return [f"the last good step: {self.good}", broken]
