"""Load while there is trouble, and what must be true after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

from bench.client import Address
from bench.ledger import Ledger
from bench.load import Report, Request, closed_loop, rate_request
from bench.reading import Reader, Reading, await_counted
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
        """`part` is back now: confirms must flow again soon."""
        self._returns.append((part, time.monotonic()))

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
