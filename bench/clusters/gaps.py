"""How long nothing happened."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise


def longest_gap_s(times: Iterable[float], since: float, until: float) -> float:
    """The longest time between `since` and `until` in which there is none of `times`, which ascend."""
    inside = [time for time in times if since < time < until]
    return max(later - earlier for earlier, later in pairwise([since, *inside, until]))
