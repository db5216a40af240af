"""The hot route: `POST /rate` in its simple forms without aiohttp, which is most of what else such a request costs.

A connection starts here. `_read` takes one request after another out of what was received: the rate by the same rules
(`api.parsing`), into the same lanes (`Publisher.enter`), answered with the same bytes (`core.answers`). At the first
request that it does not know it gives the connection to aiohttp for good, with the bytes read so far, once the requests
before that are answered. Known are a query or a form of ASCII text; neither JSON, chunked bodies nor anything odd:
`api.heads`. No task, future or timer is made for a request.

Requests of a pipeline join their batch together, and are answered in order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from math import inf
from typing import Final, cast

import structlog
from aiohttp import web

from api.heads import FIRST_LINE, Head, Heads, line_rate, may_become_rate, query_of
from api.parsing import check_key, form_rate, simple_rate, text_of
from api.publisher import Publisher
from core import http
from core.answers import EMPTY_OK, body_stalled, internal_error, problem_response, written
from core.errors import Problem
from core.http import Front, HttpService
from core.rates import Rate, RateRange, identity

log = structlog.get_logger()

MOST_PENDING = 64
"""Requests of one connection that wait for their answer; more are left in the client's socket."""

_END: Final = b"\r\n\r\n"

_Enter = Callable[[list[Rate], str | None, "Answer"], None]


def hot_route(publisher: Publisher, within: RateRange) -> Callable[[HttpService], Front]:
    """Makes the connections of an HttpService."""
    heads = Heads()
    return lambda service: HotConnection(service, publisher.enter, within, heads)


class Answer:
    """The place of one request among the answers of its connection; what a lane tells of its confirm."""

    __slots__ = ("_connection", "done_with", "head", "problem")

    def __init__(self, connection: HotConnection, head: Head) -> None:
        self._connection = connection
        self.head = head
        self.problem: Problem | None = None
        self.done_with = False

    def done(self) -> bool:
        """Also when the client is gone."""
        return self.done_with

    def set_result(self, problem: Problem | None) -> None:
        self.problem = problem
        self.done_with = True
        self._connection.answer()


class HotConnection(Front):
    """One connection, until it ends or is handed over."""

    __slots__ = (
        "_awaits_form",
        "_choked",
        "_due",
        "_enter",
        "_heads",
        "_held",
        "_last",
        "_loop",
        "_pending",
        "_received",
        "_resuming",
        "_service",
        "_timer",
        "_transport",
        "_wakes",
        "_within",
    )

    def __init__(self, service: HttpService, enter: _Enter, within: RateRange, heads: Heads) -> None:
        self._service = service
        self._enter = enter
        self._within = within
        self._heads = heads
        self._loop = asyncio.get_running_loop()
        self._pending: list[Answer] = []
        self._received = b""
        """What is not read yet: part of a request, or more while `_held`."""
        self._held = False
        """Reading is paused."""
        self._resuming = False
        """It is seen to that reading goes on."""
        self._choked = False
        """The client does not read its answers."""
        self._awaits_form = False
        """A head has come, and not all of its form: a request as well, in `HttpService.active`."""
        self._due: float
        """When, by the loop's clock, the client must have sent what is waited for; never while it is answered."""
        self._wakes: float
        """When the one timer looks at `_due`: each request moves that, and to set a timer each time would cost more."""
        self._last = False
        """No request is read any more: the connection ends with the answers that are pending."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._service.fronts.add(self)
        self._due = self._loop.time() + http.HEADER_TIMEOUT_S
        self._wake_at(self._due)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._last = True
        self._depart()
        self._no_form()
        self._service.active -= len(self._pending)
        for answer in self._pending:
            answer.done_with = True
        self._pending.clear()

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
            self._received = b""
        if self._held:
            self._received = data
        elif not self._last:
            self._read(data)

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._go_on()

    def close(self) -> None:
        """What the client has not read of its answers by IDLE_TIMEOUT_S is dropped."""
        self._transport.close()
        self._timer.cancel()
        self._due = self._loop.time() + http.IDLE_TIMEOUT_S
        self._wake_at(self._due)

    def _read(self, data: bytes) -> None:
        """Take all whole requests in, and keep the rest. This is all that a request costs on its way in."""
        start = 0
        while start < len(data) and not self._last:
            if self._choked or len(self._pending) >= MOST_PENDING:
                return self._hold(data[start:])
            line = FIRST_LINE.match(data, start)
            head_ends = data.find(_END, line.end()) + len(_END) if line else -1
            if line is None or head_ends < len(_END):
                return self._await_head(data[start:])
            head = self._heads.read(data[line.end() : head_ends])
            if head is None or (head.form_bytes and b"?" in line[1]):
                return self._hand_over(data[start:])
            ends = head_ends + head.form_bytes
            if ends > len(data):
                return self._await_form(data[start:])
            self._take(head, line, data[head_ends:ends])
            start = ends
        return None

    def _take(self, head: Head, line: re.Match[bytes], form: bytes) -> None:
        answer = Answer(self, head)
        self._pending.append(answer)
        self._no_form()
        self._service.active += 1
        self._last = not head.keep_alive
        self._due = inf
        try:
            key = None if head.key is None else check_key([head.key])
            if form:
                text = text_of(form)
                rate = simple_rate(f"/rate?{text}", self._within) or form_rate(text, "the form", self._within)
            else:
                rate = line_rate(line, self._within) or form_rate(query_of(line), "the query", self._within)
            rates = [rate]
            self._enter(rates, identity("", "/rate", key, rates) if key else None, answer)
        except Problem as problem:
            answer.set_result(problem)
        except Exception:
            log.exception("request_failed", method="POST", path="/rate")
            answer.set_result(internal_error())

    def answer(self) -> None:
        """Write what can be said by now: answers leave in the order of their requests."""
        pending = self._pending
        while pending and pending[0].done_with:
            answer = pending.pop(0)
            self._service.active -= 1
            head, problem = answer.head, answer.problem
            keep_alive = head.keep_alive and (bool(pending) or self._awaits_form or not self._service.draining)
            if problem is None and keep_alive and head.minor:
                self._transport.write(EMPTY_OK.written())
                continue
            response = web.Response() if problem is None else problem_response(problem)
            keep_alive = keep_alive and response.keep_alive is not False
            self._transport.write(written(response, keep_alive=keep_alive, minor=head.minor))
            if not keep_alive:
                self._last = True
                self.close()
                return
        if not pending:
            self._expect_within(http.BODY_TIMEOUT_S if self._awaits_form else http.IDLE_TIMEOUT_S)
        if self._held and not self._resuming:
            self._resuming = True
            self._loop.call_soon(self._go_on)

    def _hold(self, data: bytes) -> None:
        """Read no more until an answer or the client makes room."""
        self._no_form()
        self._held = True
        self._received = data
        self._transport.pause_reading()

    def _go_on(self) -> None:
        self._resuming = False
        if not self._held or self._choked or self._last or len(self._pending) > MOST_PENDING // 2:
            return
        self._held = False
        data, self._received = self._received, b""
        self._read(data)
        if not self._held and self in self._service.fronts:
            self._transport.resume_reading()

    def _hand_over(self, data: bytes) -> None:
        """Give the connection to aiohttp, with what was received and not read, when nobody waits for an answer."""
        if self._pending or self._choked:
            return self._hold(data)
        if self._transport.is_closing():
            return None
        self._depart()
        self._transport.resume_reading()
        return self._service.hand_over(self._transport, data, self._due - self._loop.time())

    def _depart(self) -> None:
        self._timer.cancel()
        self._service.fronts.discard(self)

    def _await_head(self, data: bytes) -> None:
        if may_become_rate(data):
            self._received = data
        else:
            self._hand_over(data)

    def _await_form(self, data: bytes) -> None:
        self._received = data
        if not self._awaits_form:
            self._awaits_form = True
            self._service.active += 1
            if not self._pending:
                self._expect_within(http.BODY_TIMEOUT_S)

    def _no_form(self) -> None:
        if self._awaits_form:
            self._awaits_form = False
            self._service.active -= 1

    def _expect_within(self, seconds: float) -> None:
        """The client has that long for its next, or first, request, or for the form of one."""
        self._due = self._loop.time() + seconds
        if self._due < self._wakes:
            self._timer.cancel()
            self._wake_at(self._due)

    def _wake_at(self, time: float) -> None:
        self._wakes = time
        self._timer = self._loop.call_at(time, self._look_at_clock)

    def _look_at_clock(self) -> None:
        now = self._loop.time()
        if now < self._due:
            self._wake_at(min(self._due, now + http.IDLE_TIMEOUT_S))
        elif self._choked or self._transport.is_closing():
            self._transport.abort()
        elif self._awaits_form:
            self._no_form()
            self._last = True
            minor = 0 if self._received.partition(b"\r\n")[0].endswith(b"1.0") else 1
            stalled = problem_response(body_stalled(http.BODY_TIMEOUT_S))
            self._transport.write(written(stalled, keep_alive=False, minor=minor))
            self._timer = self._loop.call_later(http.LINGERING_S, self.close)
        else:
            self.close()
