"""Load while there is trouble, and what must be true after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from itertools import count
from uuid import uuid4

import msgspec

from bench.client import Address, Connection
from bench.ledger import Ledger, Verdict
from bench.load import Courier, Report, Request, rate_request
from bench.reading import PATIENCE_S, Patience, Reader, UnreadableService
from core.lifecycle import Deadline
from core.store import Opened

SUBJECTS = 20
CONNECTIONS = 16
PAUSE_S = 0.01
REFUSED_PAUSE_S = 0.05
ANSWER_S = 30.0
FLOWS_AGAIN_S = 5.0
"""How soon after a part's return confirms must flow: what the product promises. A broker may have another bound."""
NO_MORE_S = 2.0
"""Where rates are lost: when nothing was counted for so long, nothing more will be."""


class Load:
    """Clients of one address, under subjects of their own. Each sends the next rate soon after the last was answered:
    as fast as they can they would only keep the parts that are in trouble from the processors."""

    def __init__(self, url: str, *, soon_s: float = FLOWS_AGAIN_S) -> None:
        self.address = Address.of(url)
        self.ledger = Ledger()
        self.reader = Reader(self.address)
        self.before = Opened(0, 0)
        """What `/opened` said before the first rate left."""
        self._soon_s = soon_s
        self._counted_before = 0
        self._films = f"film-{uuid4().hex[:8]}"
        self._stop = asyncio.Event()
        self._sending: asyncio.Task[Report] | None = None
        self._numbers = count()
        self._returns: list[tuple[str, float]] = []

    def start(self) -> None:
        self._stop = asyncio.Event()
        self._sending = asyncio.create_task(self._send(), name="load")

    async def stop(self) -> Report:
        """Wait for the answers under way; what became of all requests since the start."""
        assert self._sending
        self._stop.set()
        report = await self._sending
        for part, at in self._returns:
            after_s = report.next_confirm_s(at)
            assert after_s is not None, f"no confirm after {part} was back"
            assert after_s <= self._soon_s, f"{after_s:.1f} s without a confirm after {part} was back"
        self._returns.clear()
        return report

    async def run_for(self, seconds: float) -> None:
        """Let the load go on; it must not have ended by itself."""
        assert self._sending
        done, _ = await asyncio.wait({self._sending}, timeout=seconds)
        assert not done, self._sending.result()

    def back(self, part: str) -> None:
        """`part`, without which there are no confirms, is back now: they must flow again soon. Held against the report
        of `stop`."""
        self._returns.append((part, time.monotonic()))

    async def flows(self, at_least: int = 1) -> None:
        """Wait until `at_least` more rates are confirmed."""
        wanted = self.ledger.confirmed_rates + at_least
        deadline = Deadline(self._soon_s)
        while self.ledger.confirmed_rates < wanted:
            assert deadline.left_s, f"no {at_least} confirms within {self._soon_s:g} s"
            await self.run_for(0.05)

    async def grows(self, what: str, number: Callable[[], Awaitable[int]], within_s: float | None = None) -> None:
        """For parts without which confirms flow all the same: `number`, which shows the part at work, must soon be
        above what it is at first."""
        within_s = within_s or self._soon_s
        deadline = Deadline(within_s)
        readings: list[int] = []
        while not readings or readings[-1] <= readings[0]:
            assert deadline.left_s, f"{what}: {readings[-1:]} for {within_s:g} s"
            with suppress(UnreadableService):
                readings.append(await number())
            await asyncio.sleep(0.05)

    async def counted_rates(self) -> int:
        """Of this load."""
        return (await self.reader.totals()).count - self._counted_before

    async def confirmed_by(self, url: str) -> None:
        """The replica at `url`, which is back now, must confirm a rate soon. The ledger has it too."""
        address = Address.of(url)
        deadline = Deadline(self._soon_s)
        connection = Connection(address, timeout_s=self._soon_s)
        courier = Courier(connection, Report(), self.ledger)
        try:
            while not await courier.deliver(rate_request(address, (f"{self._films}-0", 0))):
                assert deadline.left_s, f"no confirm by {url} after it was back"
                await asyncio.sleep(0.05)
            assert deadline.left_s, f"the confirm by {url} took more than {self._soon_s:g} s"
        finally:
            connection.close()

    async def refused_with(self) -> str:
        """Why a rate that is sent now is not confirmed: the kind of the problem."""
        rate = rate_request(self.address, (f"{self._films}-0", 0))
        connection = Connection(self.address)
        try:
            self.ledger.send(rate.rates)
            answer = await connection.exchange(rate.wire)
        finally:
            connection.close()
        assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE, answer
        return str(msgspec.json.decode(answer.body)["type"]).rpartition(":")[2]

    async def opened(self) -> Opened:
        return await self.reader.opened()

    async def waiting(self) -> int:
        """Rates that were answered 200 and are not counted."""
        return self.ledger.confirmed_rates - await self.counted_rates()

    async def settle(self, *, abandoned: bool = False) -> None:
        """All that was answered 200 is counted, nothing twice, and nothing is opened any more.

        `abandoned` allows what a killed replica had taken in and not published.
        """
        verdict = await self.verdict()
        assert verdict.clean, [str(verdict), *verdict.lines()]
        assert verdict.confirmed > 0
        assert await self.counted_rates() == verdict.counted, "rates of an earlier load were counted meanwhile"
        opened = await self._opened_at_rest(abandoned)
        assert opened.opened == 0
        assert abandoned or opened.abandoned == self.before.abandoned

    async def verdict(self, patience_s: float = PATIENCE_S) -> Verdict:
        """The ledger against what was counted, once all was counted or nothing more is for `patience_s`. A double that
        comes later is noticed by the load after this one."""
        patience = Patience(patience_s)
        verdict = self.ledger.compare({}, {})
        while verdict.loss and not patience.over:
            await asyncio.sleep(0.05)
            with suppress(UnreadableService):
                verdict = self.ledger.compare({}, await self.reader.subjects(self.ledger.subjects))
                patience.observe(verdict.counted)
        return verdict

    async def look_before(self) -> None:
        self._counted_before = (await self.reader.totals()).count
        self.before = await self.opened()

    async def _opened_at_rest(self, abandoned: bool) -> Opened:
        opened = await self.opened()
        for _ in range(100):
            if opened.opened == 0 and (abandoned or opened.abandoned == self.before.abandoned):
                break
            await asyncio.sleep(0.1)
            opened = await self.opened()
        return opened

    async def _send(self) -> Report:
        report = Report()
        async with asyncio.TaskGroup() as clients:
            for number in range(CONNECTIONS):
                clients.create_task(self._client(report), name=f"client {number}")
        return report

    async def _client(self, report: Report) -> None:
        connection = Connection(self.address, timeout_s=ANSWER_S)
        courier = Courier(connection, report, self.ledger)
        try:
            while not self._stop.is_set():
                confirmed = await courier.deliver(self._next_request())
                await asyncio.sleep(PAUSE_S if confirmed else REFUSED_PAUSE_S)
        finally:
            connection.close()

    def _next_request(self) -> Request:
        number = next(self._numbers)
        return rate_request(self.address, (f"{self._films}-{number % SUBJECTS}", number % 101))


@asynccontextmanager
async def load_on(url: str, *, soon_s: float = FLOWS_AGAIN_S) -> AsyncIterator[Load]:
    load = Load(url, soon_s=soon_s)
    await load.look_before()
    load.start()
    try:
        await load.run_for(0.5)
        yield load
    finally:
        load._stop.set()
        if load._sending:
            load._sending.cancel()
            await asyncio.gather(load._sending, return_exceptions=True)
        load.reader.close()
