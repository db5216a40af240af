"""How fast this machine is just now: processor time that a fixed piece of work takes.

Hosts share their processors: the same build may cost 10 % more an hour later. What two sittings spent is compared after
each was divided by this.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Final

import msgspec

_TURNS: Final = 5
_ITEMS: Final = [{"subject": f"film-{number}", "rate": number % 101} for number in range(400)]


def calibrate() -> float:
    """Microseconds, the median of some turns; about 50 ms in all. Blocks."""
    return median(_turn() for _ in range(_TURNS))


def _turn() -> float:
    """What a service does much of: encoding, decoding, counting in dictionaries."""
    begun = time.thread_time()
    counts: dict[str, int] = {}
    for _ in range(20):
        for item in msgspec.json.decode(msgspec.json.encode(_ITEMS)):
            subject = item["subject"]
            counts[subject] = counts.get(subject, 0) + item["rate"]
    return (time.thread_time() - begun) * 1e6
