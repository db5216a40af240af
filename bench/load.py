"""Load: what a request is, what becomes of requests, and a loop that takes care of each of them.

`closed_loop` sends the next request when the last was answered, and may send one again until it is confirmed: for
trouble and for replays. It says nothing about latency and is dear; `bench.open_loop` measures.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from bench.client import Address, Broken, Connection, Refused, Silent, request_bytes
from bench.histogram import Histogram
from bench.ledger import Ledger
from core.rates import Rate

LATE_S = 0.02
"""How late the open loop itself may be, at the 99th percentile, before a run is void."""
LITTLE_LATE_S = 0.002
LATE_SHARE = 0.25
"""Beyond LITTLE_LATE_S it may be no more than this share of the latency's own 99th percentile, of which it is a part.
Of 400 loads of the lab on two shared cores one in a hundred was later."""
SATURATED_SHARE = 0.02
"""The share of a run in which requests may pile up while its thread has no pause, before it is void."""
FILMS = 3000
MOST_FAILED = 0.001
"""The share of requests that may end without a confirm, and so without a latency, before latencies are void."""
_PAUSE_S = 0.05
_NEVER_LEFT = 0
_UNKNOWN = 1


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What one request carries, and how it goes over the wire. To send one object again is cheaper than a like one."""

    rates: tuple[Rate, ...]
    wire: bytes


def rate_request(address: Address, rate: Rate, key: str = "") -> Request:
    """`POST /rate` in its query form."""
    path = f"/rate?rate={rate[1]}&subject={rate[0]}"
    return Request((rate,), request_bytes(address, "POST", path, key=key))


def film_requests(address: Address) -> Iterator[Request]:
    """`POST /rate` without end, over FILMS subjects and all rates from 0 to 100."""
    return itertools.cycle([rate_request(address, (f"film-{n}", n * 7 % 101)) for n in range(FILMS)])


def rates_request(address: Address, rates: Sequence[Rate]) -> Request:
    """`POST /rates`: all of `rates` in one request."""
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
    """`time.monotonic` of each confirm, ascending."""

    @property
    def answered(self) -> int:
        return self.statuses.total()

    @property
    def confirmed(self) -> int:
        return len(self.confirmed_at)

    @property
    def failed(self) -> int:
        """Requests, re-sent ones each time, that were not confirmed."""
        return self.answered - self.confirmed + self.refused + self.broken + self.silent

    @property
    def confirmed_per_s(self) -> float:
        return self.confirmed / self.seconds if self.seconds else 0.0

    @property
    def outcomes(self) -> str:
        """How many ended how, for people."""
        told = [f"{count} answers of {status}" for status, count in sorted(self.statuses.items())]
        for count, what in ((self.refused, "refused"), (self.broken, "broken"), (self.silent, "silent")):
            if count:
                told.append(f"{count} connections {what}")
        return ", ".join(told) or "no answers"

    def next_confirm_s(self, after_s: float) -> float | None:
        """How long after `time.monotonic` was `after_s` the next confirm came."""
        index = bisect_left(self.confirmed_at, after_s)
        return self.confirmed_at[index] - after_s if index < len(self.confirmed_at) else None


@dataclass(slots=True)
class OpenLoopReport(Report):
    """What became of a schedule."""

    scheduled: int = 0
    """Requests whose time came."""
    unsent: int = 0
    """Those of them that never left, for no connection was free until soon after the end."""
    latency: Histogram = field(default_factory=Histogram)
    """From when it was due until it was confirmed, of each request that was; `lateness` is a part of it."""
    lateness: Histogram = field(default_factory=Histogram)
    """From when a request was due until the generator took it in hand, of each: its own doing."""
    cut_short: int = 0
    """Of `silent`: those that were under way when the run was broken off, and had waited no longer than others did."""
    saturated_s: float = 0.0
    """How long requests piled up while the generator's thread had no pause."""
    scheduled_s: float = 0.0
    """The length of the schedule, or of what was gone through of it."""
    cpu_s: float = 0.0
    """Processor time of the generator's whole process meanwhile."""

    @property
    def sent(self) -> int:
        return self.scheduled - self.unsent

    @property
    def late(self) -> bool:
        """Whether the generator was in the way: its latencies are void."""
        own_s = self.lateness.percentile_s(99)
        shows = own_s > max(LITTLE_LATE_S, LATE_SHARE * self.latency.percentile_s(99))
        return own_s > LATE_S or shows or self.saturated_s > SATURATED_SHARE * self.scheduled_s

    @property
    def fell_behind(self) -> bool:
        """Whether the schedule was not kept, by the generator's doing or the server's: latencies are void."""
        return self.unsent > 0 or self.late

    @property
    def void(self) -> str:
        """Why latencies say nothing; empty if they count."""
        if not self.late:
            return self.incomplete
        late = (
            f"the generator itself fell behind, {self.lateness.percentile_s(99) * 1000:.1f} ms late (p99), "
            f"{self.saturated_s:.1f} s without a pause"
        )
        return f"{late}; {self.incomplete}" if self.incomplete else late

    @property
    def incomplete(self) -> str:
        """Why latencies would be too low; empty if they are not. What was not confirmed has none: a service that
        answers a part of the requests, and leaves out the rest, would look fast."""
        why = []
        if self.unsent:
            why.append(f"{self.unsent} of {self.scheduled} requests found no free connection in time")
        failed = self.failed - self.cut_short
        if failed > MOST_FAILED * (failed + self.confirmed):
            why.append(f"{failed} of {failed + self.confirmed} requests were not confirmed")
        return "; ".join(why)

    @property
    def cpu_share(self) -> float:
        """The generator's, of one core."""
        return self.cpu_s / self.seconds if self.seconds else 0.0


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile of `values`; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


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
