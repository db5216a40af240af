"""Work: the handling of a rate takes WORK_S, WORK_CONCURRENCY at a time, as a real handler's would.

Without it the ways to dispatch cannot be told apart. The workers are a schedule and not tasks that sleep: a timer may
be a millisecond off, which is all of a short work, but only the end of a long schedule is ever waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from heapq import heapreplace


class Work:
    """The workers of one process, shared by all that it handles. `clock` is monotonic, in seconds."""

    def __init__(self, work_s: float, concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._work_s = work_s
        self._concurrency = concurrency
        self._clock = clock
        self._free_at = [0.0] * concurrency
        """A heap: when each worker is done with what it was given."""

    @property
    def takes_time(self) -> bool:
        """Whether the handling of a rate takes any time."""
        return self._work_s > 0

    def rates_in(self, seconds: float) -> int:
        """How many rates fit in that time; at least one."""
        return max(1, int(seconds * self._concurrency / self._work_s))

    def begin(self, rates: int) -> float:
        """Give `rates` to the workers, each to the first that is free; when, by the clock, the last will be done."""
        now = done_at = self._clock()
        if self._work_s:
            for _ in range(rates):
                at = max(now, self._free_at[0]) + self._work_s
                heapreplace(self._free_at, at)
                done_at = max(done_at, at)
        return done_at

    def left_s(self, done_at: float) -> float:
        return max(0.0, done_at - self._clock())

    async def done(self, rates: int) -> None:
        """Return when the workers have handled `rates` that are given to them now."""
        done_at = self.begin(rates)
        while left_s := self.left_s(done_at):
            await asyncio.sleep(left_s)
