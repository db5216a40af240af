"""A row's own ledger, in a scene that holds several rows.

wrk stops with a request under way on each connection. Nobody waits for those, yet they may be counted: at once, or
while the next row runs.
"""

from __future__ import annotations

import asyncio
from typing import Final

from bench.ledger import Verdict, compare_totals
from bench.reading import PATIENCE_S, Patience, Reader

_POLL_S: Final = 0.1


def verdict(*, sent: int, before: int, confirmed: int, after: int) -> Verdict:
    """What a row confirmed against what was counted from `before` to `after` it; both, and `sent`, are totals since the
    scene began. Whatever had left and was not counted before it may have been counted since."""
    return compare_totals(sent=sent - before, confirmed=confirmed, counted=after - before)


async def all_counted(reader: Reader, least: int, *, patience_s: float = PATIENCE_S) -> int:
    """Wait until the total is at least `least` and nothing is under way in the service, or the total stood still for
    `patience_s`; the total. Raises UnreadableService."""
    waiting = Patience(patience_s)
    while True:
        total = (await reader.totals()).count
        if total >= least and (await reader.opened()).opened == 0:
            return (await reader.totals()).count
        waiting.observe(total)
        if waiting.over:
            return total
        await asyncio.sleep(_POLL_S)
