"""The engine of the loops: hands what is due to free lines, and keeps the books.

One callback, rung by an alarm, takes what is due and gives it to lines; what finds none free waits in a queue and
leaves with the next answer. There is no task, future or timer for a request. `bench.open_loop` says what the figures
mean.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from math import inf
from typing import Final

from bench.alarm import Alarm
from bench.client import Address
from bench.ledger import Ledger
from bench.lines import BROKEN, REFUSED, SILENT, Line
from bench.load import OpenLoopReport, Request
from bench.pulse import Pulse
from core.errors import FanrateError

GRACE_S: Final = 1.0
"""How long after the end of the schedule its last requests may still leave."""
_TOGETHER_S: Final = 0.0003
"""What is due within so long leaves together: at high rates to wake up for each would cost more than to send it."""
_SOON_S: Final = 0.01
_LOOK_S: Final = 0.1
_REST_S: Final = 0.05
"""How long a line lets a server be that refused a connection or, at full speed, did not confirm."""
_BUSY: Final = 0.95


class OutOfFiles(FanrateError):
    """The generator may not open as many connections as it was asked for: no service refused them."""


@dataclass(slots=True, eq=False)
class Engine:
    """Sends `requests` at `times`, seconds from the start, or, with `at_once`, each as soon as a line is free; once,
    for `seconds` or until `stop` is set. `report` is filled meanwhile."""

    report: OpenLoopReport
    requests: Iterator[Request]
    seconds: float
    times: Iterator[float]
    at_once: bool
    timeout_s: float
    confirmed: frozenset[int]
    stop: asyncio.Event | None

    _lines: list[Line] = field(default_factory=list)
    _idle: deque[Line] = field(default_factory=deque)
    _queue: deque[float] = field(default_factory=deque)
    """When each was due that no line was free for."""
    _outcomes: dict[int, dict[Request, int]] = field(default_factory=dict)
    _under_way: int = 0
    _start: float = 0.0
    _last: float = 0.0
    """When the last exchange ended."""
    _next: float = inf
    """When the next request is due."""
    _look_at: float = inf
    _queued_before: int = 0
    _over: asyncio.Future[None] = field(init=False)
    _pulse: Pulse = field(init=False)
    _alarm: Alarm = field(init=False)

    async def run(self, addresses: Sequence[Address], connections: int) -> None:
        """Until all is answered or given up; the report is filled also when this is cancelled."""
        self._lines = [Line(addresses[number % len(addresses)], self._ended) for number in range(connections)]
        self._over = asyncio.get_running_loop().create_future()
        self._pulse = Pulse()
        self._alarm = Alarm(self._ring)
        cpu_s = time.process_time()
        try:
            await self._connect()
            cpu_s = time.process_time()
            self._begin()
            await self._over
        finally:
            self.report.cpu_s = time.process_time() - cpu_s
            self._finish()

    def book(self, ledger: Ledger) -> None:
        """Write down what may have been taken in, and what certainly was."""
        for outcome, tally in self._outcomes.items():
            if outcome == REFUSED or HTTPStatus.BAD_REQUEST <= outcome < HTTPStatus.INTERNAL_SERVER_ERROR:
                continue
            for request, times in tally.items():
                ledger.send(request.rates, times)
                if outcome in self.confirmed:
                    ledger.confirm(request.rates, times)

    async def _connect(self) -> None:
        """Latencies are not to hold the time of it. Lines that cannot connect try again with their first request."""
        openings = (line.open() for line in self._lines)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.timeout_s):
                for failed in await asyncio.gather(*openings, return_exceptions=True):
                    if isinstance(failed, OSError) and failed.errno in (errno.EMFILE, errno.ENFILE):
                        raise OutOfFiles(f"no {len(self._lines)} connections can be opened here: {failed.strerror}")

    def _begin(self) -> None:
        self._start = self._last = time.monotonic()
        self._look_at = self._start + _LOOK_S
        self._pulse.share()
        if self.at_once:
            for line in self._lines:
                self._free(line)
        else:
            self._idle.extend(self._lines)
            self._next = self._start + next(self.times, inf)
        self._alarm.set(self._start)

    def _ring(self) -> None:
        """The alarm's; an exception in it must not leave the run hanging."""
        try:
            self._turn()
        except Exception as exc:
            self._abort(exc)

    def _abort(self, exc: Exception) -> None:
        """End the run with `exc`."""
        self._next = inf
        if not self._over.done():
            self._over.set_exception(exc)

    def _turn(self) -> None:
        now = time.monotonic()
        if self.stop is not None and self.stop.is_set():
            self._break_off()
        if self._next <= now:
            self._give(now)
        if now >= self._look_at:
            self._look(now)
        if self._at_end(now):
            if not self._over.done():
                self._over.set_result(None)
        else:
            self._alarm.set(min(max(self._next, now + _TOGETHER_S), now + _SOON_S))

    def _give(self, now: float) -> None:
        """Hand over what is due."""
        report, idle, queue, times, start = self.report, self._idle, self._queue, self.times, self._start
        due = self._next
        record = report.lateness.record
        scheduled = 0
        while due <= now:
            record(now - due)
            scheduled += 1
            if idle:
                self._send(idle.popleft(), due, now)
            else:
                queue.append(due)
            due = start + next(times, inf)
        self._next = due
        report.scheduled += scheduled

    def _send(self, line: Line, due: float, now: float) -> None:
        try:
            request = next(self.requests)
        except Exception as exc:
            self._abort(RuntimeError("no next request") if isinstance(exc, StopIteration) else exc)
            return
        self._under_way += 1
        line.send(request, due, now)

    def _ended(self, line: Line, outcome: int) -> None:
        """A line's exchange is over."""
        now = self._last = time.monotonic()
        self._under_way -= 1
        self._note(line, outcome)
        if self._next <= now:
            self._give(now)
        if outcome in self.confirmed:
            self.report.latency.record(now - line.due)
            self.report.confirmed_at.append(now)
            self._free(line)
        elif outcome == REFUSED or self.at_once:
            asyncio.get_running_loop().call_later(_REST_S, self._rested, line)
        else:
            self._free(line)

    def _rested(self, line: Line) -> None:
        if not self._over.done():
            self._free(line)

    def _note(self, line: Line, outcome: int) -> None:
        request = line.request
        assert request is not None
        tally = self._outcomes.get(outcome)
        if tally is None:
            tally = self._outcomes[outcome] = {}
        tally[request] = tally.get(request, 0) + 1

    def _free(self, line: Line) -> None:
        if self._queue:
            self._send(line, self._queue.popleft(), time.monotonic())
        elif self.at_once:
            now = time.monotonic()
            if now < self._start + self.seconds and not self._over.done():
                self.report.scheduled += 1
                self._send(line, now, now)
        else:
            self._idle.append(line)

    def _look(self, now: float) -> None:
        """What need not be looked at each time: answers that are overdue, the own thread, the end."""
        for line in self._lines:
            if line.busy and now - line.sent_at > self.timeout_s:
                line.give_up()
        busy, queued = self._pulse.share(), len(self._queue)
        piles_up = queued > max(self._queued_before, len(self._lines))
        if busy >= _BUSY and piles_up and now < self._start + self.seconds:
            self.report.saturated_s += now - self._look_at + _LOOK_S
        self._queued_before = queued
        if now > self._start + self.seconds + GRACE_S:
            self.report.unsent += queued
            self._queue.clear()
        self._look_at = now + _LOOK_S

    def _break_off(self) -> None:
        """What is due later never was; what waits for a line is left out."""
        self.report.scheduled -= len(self._queue)
        self._queue.clear()
        self._next = inf
        self.seconds = min(self.seconds, time.monotonic() - self._start)

    def _at_end(self, now: float) -> bool:
        given = self._next == inf and not self._queue
        return given and not self._under_way and (not self.at_once or now >= self._start + self.seconds)

    def _finish(self) -> None:
        """What is under way when the run is cut short has no answer in time."""
        self._alarm.close()
        self._pulse.close()
        now, longest_s = time.monotonic(), self.report.latency.percentile_s(100)
        for line in self._lines:
            if line.busy:
                self._note(line, SILENT)
                self.report.cut_short += now - line.due <= longest_s
            line.close()
        report, told = self.report, {code: sum(tally.values()) for code, tally in self._outcomes.items()}
        report.refused, report.broken, report.silent = (told.pop(code, 0) for code in (REFUSED, BROKEN, SILENT))
        report.statuses.update(told)
        report.seconds = max(0.0, self._last - self._start)
        report.scheduled_s = self.seconds
