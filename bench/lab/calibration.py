"""How fast this machine is just now: processor time that a fixed piece of work takes, beside the load.

A host shares its processors out as it likes: with nothing else running in a virtual machine, and nothing told as
stolen, the same work was seen to take 60 % more a minute later. So pieces of it are done all through a load, a few
hundredths of one core, and what a rate cost is compared after it was divided by what they took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

EVERY_S: Final = 0.1
_ITEMS: Final = [{"subject": f"film-{number}", "rate": number % 101} for number in range(100)]


@asynccontextmanager
async def calibrating(told_us: list[float]) -> AsyncIterator[None]:
    """Do a piece every EVERY_S meanwhile; `told_us` gets the microseconds of each."""
    task = asyncio.create_task(_go_on(told_us), name="calibration")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _go_on(told_us: list[float]) -> None:
    while True:
        told_us.append(piece())
        await asyncio.sleep(EVERY_S)


def piece() -> float:
    """Microseconds of what a service does much of: encoding, decoding, counting in dictionaries; about 2 ms."""
    begun = time.thread_time()
    counts: dict[str, int] = {}
    for _ in range(80):
        for item in msgspec.json.decode(msgspec.json.encode(_ITEMS)):
            subject = item["subject"]
            counts[subject] = counts.get(subject, 0) + item["rate"]
    return (time.thread_time() - begun) * 1e6
