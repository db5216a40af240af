"""Loops that are cheap enough to load a service from one core.

`open_loop` sends on a schedule, whatever the answers do, and latencies count from when each request was due. So a stall
of the server shows in every request that should have left meanwhile; a loop that waits for answers leaves those out
("coordinated omission", Gil Tene). A wait for a free connection is the server's doing and part of the latency. A wait
for the generator itself is part of it too, and nobody's but its own: it is told beside it, and where it is more than a
small part it makes the run void (`OpenLoopReport.late`). Requests that were not confirmed have no latency; more than a
few of them make the run void as well (`OpenLoopReport.void`).

`full_speed` is such a loop that waits for answers: it finds how much a service carries, and tells no latency.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from http import HTTPStatus

from bench.client import Address
from bench.ledger import Ledger
from bench.load import OpenLoopReport, Report, Request
from bench.pacing import Engine
from bench.schedule import Schedule

TIMEOUT_S = 10.0
_OK = (HTTPStatus.OK,)


async def open_loop(
    addresses: Sequence[Address],
    requests: Iterator[Request],
    ledger: Ledger,
    schedule: Schedule,
    *,
    connections: int,
    timeout_s: float = TIMEOUT_S,
    confirmed_statuses: Collection[int] = _OK,
    stop: asyncio.Event | None = None,
    report: OpenLoopReport | None = None,
) -> OpenLoopReport:
    """Send `requests`, of which there must be enough, on `schedule`, or until `stop` is set, over `connections` in all,
    spread evenly over `addresses`; wait for the answers.

    The ledger is written at the end, also when this is cancelled. `report`, if given, is the one to fill: its
    `confirmed_at` grows meanwhile. Raises OutOfFiles.
    """
    report = OpenLoopReport() if report is None else report
    statuses = frozenset(map(int, confirmed_statuses))
    engine = Engine(report, requests, schedule.seconds, schedule.times(), False, timeout_s, statuses, stop)
    await _run(engine, addresses, connections, ledger)
    return report


async def full_speed(
    addresses: Sequence[Address],
    requests: Iterator[Request],
    ledger: Ledger,
    *,
    seconds: float,
    connections: int,
    timeout_s: float = TIMEOUT_S,
    confirmed_statuses: Collection[int] = _OK,
    report: OpenLoopReport | None = None,
) -> Report:
    """Send the next request on each of the `connections` as soon as the last was answered, for `seconds`; otherwise
    like `open_loop`."""
    report = OpenLoopReport() if report is None else report
    statuses = frozenset(map(int, confirmed_statuses))
    engine = Engine(report, requests, seconds, iter(()), True, timeout_s, statuses, None)
    await _run(engine, addresses, connections, ledger)
    return report


async def _run(engine: Engine, addresses: Sequence[Address], connections: int, ledger: Ledger) -> None:
    try:
        await engine.run(addresses, connections)
    finally:
        engine.book(ledger)
