"""Load: two ways to send rates, both of which write the ledger.

`open_loop` sends on a fixed schedule whatever the answers do; its latencies count from the intended time, so a stall
of the server shows in every request that should have left meanwhile. `closed_loop` sends the next request when the last
was answered: for trouble and for replays; it says nothing about latency.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from bench.client import Address, Broken, Connection, Refused, Silent, request_bytes
from bench.ledger import Ledger
from core.rates import Rate

LATE_S = 0.02
"""How late the generator's own wake-ups may be, at the 99th percentile, before a run is void."""
GRACE_S = 1.0
"""How long after the end of the schedule its last requests may still leave."""
_PAUSE_S = 0.05
_NEVER_LEFT = 0
_UNKNOWN = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What one request carries, and how it goes over the wire."""

    rates: tuple[Rate, ...]
    wire: bytes


def rate_request(address: Address, rate: Rate, key: str = "") -> Request:
    """`POST /rate` in its query form."""
    path = f"/rate?rate={rate[1]}&subject={rate[0]}"
    return Request((rate,), request_bytes(address, "POST", path, key=key))


def rates_request(address: Address, rates: Sequence[Rate]) -> Request:
    """`POST /rates` with a JSON array."""
    body = msgspec.json.encode([{"rate": rate, "subject": subject} for subject, rate in rates])
    return Request(tuple(rates), request_bytes(address, "POST", "/rates", body=body, content_type="application/json"))


@dataclass(slots=True)
class Report:
    """What became of the requests of one run."""

    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    """No connection could be opened."""
    broken: int = 0
    """The connection ended after the request had left."""
    silent: int = 0
    """No answer in time."""
    seconds: float = 0.0
    confirmed_at: array[float] = field(default_factory=lambda: array("d"))
    """`time.monotonic` of each 200, ascending."""
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    """Open loop: from the intended sending to the 200, of each request answered 200."""
    wake_ups_s: array[float] = field(default_factory=lambda: array("d"))
    """Open loop: by how much the generator itself woke up late."""
    unsent: int = 0
    """Open loop: requests of the schedule that never left, every connection being busy."""

    @property
    def answered(self) -> int:
        return self.statuses.total()

    @property
    def failed(self) -> int:
        """Requests, re-sent ones each time, that ended otherwise than with 200."""
        return self.answered - self.statuses[HTTPStatus.OK] + self.refused + self.broken + self.silent

    @property
    def fell_behind(self) -> bool:
        """Whether the schedule was not kept: latencies of such a run are void."""
        return self.unsent > 0 or percentile(self.wake_ups_s, 99) > LATE_S

    def next_confirm_s(self, after_s: float) -> float | None:
        """How long after `time.monotonic` was `after_s` the next 200 came."""
        index = bisect_left(self.confirmed_at, after_s)
        return self.confirmed_at[index] - after_s if index < len(self.confirmed_at) else None


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile of `values`; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


async def open_loop(
    address: Address,
    requests: Iterator[Request],
    ledger: Ledger,
    *,
    per_s: float,
    seconds: float,
    connections: int,
    timeout_s: float = 10.0,
    stop: asyncio.Event | None = None,
) -> Report:
    """Send request number i at i / `per_s` for `seconds`, or until `stop` is set; a request whose time has come waits
    for a free one of the `connections`, and that wait is part of its latency."""
    report = Report()
    start = time.monotonic() + 0.05
    slots = iter(range(int(per_s * seconds)))
    last_leave = start + seconds + GRACE_S

    async def work(courier: Courier) -> None:
        for slot in slots:
            due = start + slot / per_s
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
                report.wake_ups_s.append(time.monotonic() - due)
            elif now > last_leave:
                report.unsent += 1
                continue
            if stop is not None and stop.is_set():
                return
            if await courier.deliver(next(requests)):
                report.latencies_s.append(time.monotonic() - due)

    await _work_all(work, address, report, ledger, connections, timeout_s)
    report.seconds = time.monotonic() - start
    return report


async def closed_loop(
    address: Address,
    requests: Iterator[Request],
    ledger: Ledger,
    *,
    connections: int,
    stop: asyncio.Event | None = None,
    retry: bool = False,
    timeout_s: float = 10.0,
    confirmed: Callable[[int], object] = lambda rates: None,
) -> Report:
    """Send `requests` as fast as the answers come, until there are no more or `stop` is set.

    With `retry`, one that was not answered 200 is sent again, until it is or `stop` is set: for requests with a key.
    `confirmed` is told of the number of rates of each 200.
    """
    report = Report()
    stop = stop or asyncio.Event()
    start = time.monotonic()

    async def work(courier: Courier) -> None:
        for request in requests:
            if await courier.deliver(request, stop if retry else None):
                confirmed(len(request.rates))
            elif not stop.is_set():
                await asyncio.sleep(_PAUSE_S)
            if stop.is_set():
                return

    await _work_all(work, address, report, ledger, connections, timeout_s)
    report.seconds = time.monotonic() - start
    return report


class Courier:
    """Takes requests to the server over one connection and keeps the books."""

    def __init__(self, connection: Connection, report: Report, ledger: Ledger) -> None:
        self._connection = connection
        self._report = report
        self._ledger = ledger

    async def deliver(self, request: Request, retry_until: asyncio.Event | None = None) -> bool:
        """Send `request`, again and again until `retry_until` is set; whether it was answered 200."""
        self._ledger.send(request.rates)
        may_count = False
        while True:
            status = await self._attempt(request)
            if status == HTTPStatus.OK:
                self._ledger.confirm(request.rates)
                self._report.confirmed_at.append(time.monotonic())
                return True
            rejected = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
            may_count = may_count or not (rejected or status == _NEVER_LEFT)
            if rejected or retry_until is None or retry_until.is_set():
                break
            await asyncio.sleep(_PAUSE_S)
        if not may_count:
            self._ledger.withdraw(request.rates)
        return False

    async def _attempt(self, request: Request) -> int:
        """The answer's status, or a stand-in for an exchange that had none."""
        try:
            answer = await self._connection.exchange(request.wire)
        except Refused:
            self._report.refused += 1
            return _NEVER_LEFT
        except Broken:
            self._report.broken += 1
            return _UNKNOWN
        except Silent:
            self._report.silent += 1
            return _UNKNOWN
        self._report.statuses[answer.status] += 1
        return answer.status


async def _work_all(
    work: Callable[[Courier], Coroutine[None, None, None]],
    address: Address,
    report: Report,
    ledger: Ledger,
    connections: int,
    timeout_s: float,
) -> None:
    opened = [Connection(address, timeout_s=timeout_s) for _ in range(connections)]
    try:
        async with asyncio.TaskGroup() as tasks:
            for number, connection in enumerate(opened):
                tasks.create_task(work(Courier(connection, report, ledger)), name=f"load-{number}")
    finally:
        for connection in opened:
            connection.close()
