"""What the generator itself carries, against a server that does nothing: requests/s on one core, and its cost of each.

At full speed first. Then on a schedule of RATE: its processor time per request tells what one core carries, and that it
keeps the schedule is the proof. Where others want the processors too it may take TRIES to keep it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.client import Address
from bench.ledger import Ledger
from bench.load import OpenLoopReport, film_requests
from bench.open_loop import full_speed, open_loop
from bench.schedule import Schedule
from core.commands import child
from core.errors import FanrateError
from stack.ports import HOST, free_port

RATE = 20_000
CONNECTIONS = 64
TRIES = 3
_READY_S = 10.0
_POLL_S = 0.02


class NotUp(FanrateError):
    """The server that does nothing did not even that."""


@dataclass(frozen=True, slots=True)
class Server:
    address: Address
    pid: int


@dataclass(frozen=True, slots=True)
class Carried:
    """`free` ran at full speed, `paced` on a schedule of RATE."""

    free: OpenLoopReport
    paced: OpenLoopReport

    @property
    def met(self) -> bool:
        return self.per_core_s >= RATE and not self.paced.fell_behind

    @property
    def per_core_s(self) -> float:
        """Requests/s, on a schedule, that one core's time is enough for."""
        return self.paced.sent / max(1e-9, self.paced.cpu_s)


async def measure(seconds: float) -> Carried:
    """Raises NotUp."""
    async with do_nothing() as server:
        address = server.address
        free = OpenLoopReport()
        await full_speed(
            [address], film_requests(address), Ledger(), seconds=seconds, connections=CONNECTIONS, report=free
        )
        for _ in range(TRIES):
            paced = await open_loop(
                [address], film_requests(address), Ledger(), Schedule(RATE, seconds), connections=CONNECTIONS
            )
            if not paced.fell_behind:
                break
        return Carried(free, paced)


@asynccontextmanager
async def do_nothing() -> AsyncIterator[Server]:
    """A process of its own that answers 200 to all; raises NotUp."""
    address = Address(HOST, free_port())
    process = await asyncio.create_subprocess_exec(*child("bench.do_nothing"), str(address.port))
    try:
        await _until_up(address)
        yield Server(address, process.pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_up(address: Address) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError as exc:
            if loop.time() > deadline:
                raise NotUp(f"nothing listens on {address} after {_READY_S:g} s") from exc
            await asyncio.sleep(_POLL_S)
        else:
            writer.close()
            await writer.wait_closed()
            return


def told(carried: Carried) -> dict[str, object]:
    """The result for a file."""
    free, paced = carried.free, carried.paced
    return {
        "per_core_s": round(carried.per_core_s),
        "met": carried.met,
        "full_speed_per_s": round(free.confirmed_per_s),
        "scheduled_per_s": RATE,
        "core_share": round(paced.cpu_share, 3),
        "late_ms": paced.lateness.told_ms(),
    }


def lines(carried: Carried) -> list[str]:
    """The result for people."""
    free, paced = carried.free, carried.paced
    return [
        f"at full speed, {CONNECTIONS} connections: {_told(free)}",
        f"on a schedule of {RATE:,}/s: {_told(paced)}, {paced.cpu_share:.0%} of a core; itself late by {_late(paced)}",
        f"one core carries {carried.per_core_s:,.0f} requests/s on a schedule, at least {RATE:,}: {_verdict(carried)}",
    ]


def _told(report: OpenLoopReport) -> str:
    us = report.cpu_s / max(1, report.sent) * 1e6
    return f"{report.confirmed_per_s:,.0f} requests/s, {us:.1f} us of processor time each"


def _verdict(carried: Carried) -> str:
    if carried.paced.fell_behind:
        return f"NOT SHOWN, it fell behind {TRIES} times; is the machine busy?"
    return "met" if carried.met else "MISSED"


def _late(report: OpenLoopReport) -> str:
    at = report.lateness.percentiles_s(50, 99)
    return f"{at[50] * 1000:.2f} ms (p50), {at[99] * 1000:.2f} ms (p99)"
