"""Load while there is trouble, and what must be true after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count

from bench.client import Address, Connection
from bench.ledger import Ledger
from bench.load import Courier, Report, Request, closed_loop, rate_request
from bench.reading import Reader, Reading, UnreadableService, await_counted
from core.lifecycle import Deadline
from core.store import Opened

SUBJECTS = 50
CONNECTIONS = 16
FLOWS_AGAIN_S = 5.0
"""How soon after a part's return confirms must flow: what the product promises."""


class Load:
    """Clients of one address, each sending the next rate when the last was answered."""

    def __init__(self, url: str) -> None:
        self.address = Address.of(url)
        self.ledger = Ledger()
        self.reader = Reader(self.address)
        self._stop = asyncio.Event()
        self._sending: asyncio.Task[Report] | None = None
        self._reports: list[Report] = []
        self._numbers = count()
        self._returns: list[tuple[str, float]] = []

    def start(self) -> None:
        self._stop = asyncio.Event()
        self._sending = asyncio.create_task(
            closed_loop(
                self.address, self._requests(), self.ledger, connections=CONNECTIONS, stop=self._stop, timeout_s=30
            )
        )

    async def stop(self) -> Report:
        """Wait for the answers under way; what became of all requests since the start."""
        assert self._sending
        self._stop.set()
        report = await self._sending
        for part, at in self._returns:
            after_s = report.next_confirm_s(at)
            assert after_s is not None, f"no confirm after {part} was back"
            assert after_s <= FLOWS_AGAIN_S, f"{after_s:.1f} s without a confirm after {part} was back"
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

    async def grows(self, what: str, number: Callable[[], Awaitable[int]]) -> None:
        """For parts without which confirms flow all the same: `number`, which shows the part at work, must soon be
        above what it is at first."""
        deadline = Deadline(FLOWS_AGAIN_S)
        readings: list[int] = []
        while not readings or readings[-1] <= readings[0]:
            assert deadline.left_s, f"{what}: {readings[-1:]} for {FLOWS_AGAIN_S:g} s"
            with suppress(UnreadableService):
                readings.append(await number())
            await asyncio.sleep(0.05)

    async def counted_rates(self) -> int:
        return (await self.reader.totals()).count

    async def confirmed_by(self, url: str) -> None:
        """The replica at `url`, which is back now, must confirm a rate soon. The ledger has it too."""
        address = Address.of(url)
        deadline = Deadline(FLOWS_AGAIN_S)
        connection = Connection(address, timeout_s=FLOWS_AGAIN_S)
        courier = Courier(connection, Report(), self.ledger)
        try:
            while not await courier.deliver(rate_request(address, ("film-0", 0))):
                assert deadline.left_s, f"no confirm by {url} after it was back"
                await asyncio.sleep(0.05)
            assert deadline.left_s, f"the confirm by {url} took more than {FLOWS_AGAIN_S:g} s"
        finally:
            connection.close()

    async def opened(self) -> Opened:
        return await self.reader.opened()

    async def settle(self, *, abandoned: bool = False) -> None:
        """All that was answered 200 is counted, nothing twice, and nothing is opened any more.

        `abandoned` allows what a killed replica had taken in and not published.
        """
        verdict = await await_counted(self.reader, self.ledger, Reading(0, {}))
        assert verdict.clean, [str(verdict), *verdict.lines()]
        assert verdict.confirmed > 0
        opened = await self._opened_at_rest()
        assert opened.opened == 0
        assert abandoned or opened.abandoned == 0

    async def _opened_at_rest(self) -> Opened:
        opened = await self.opened()
        for _ in range(100):
            if opened.opened == 0 and opened.abandoned == 0:
                break
            await asyncio.sleep(0.1)
            opened = await self.opened()
        return opened

    def _requests(self) -> Iterator[Request]:
        for number in self._numbers:
            yield rate_request(self.address, (f"film-{number % SUBJECTS}", number % 101))


@asynccontextmanager
async def load_on(url: str) -> AsyncIterator[Load]:
    load = Load(url)
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
