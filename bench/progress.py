"""What is said meanwhile: progress bars, on a terminal and nothing elsewhere; the time that is left; little else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn, TypeVar

import structlog
from tqdm import tqdm

from bench.load import Report

_LOOK_S = 0.2
Item = TypeVar("Item")


def only_warnings() -> None:
    """What the bench' own clients log would stand between the lines of progress."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def told(error: BaseException) -> str:
    """In words; TimeoutError says nothing of itself."""
    return str(error) or repr(error)


def with_time_left(items: Sequence[Item], lasts_s: Callable[[Item], float]) -> Iterator[tuple[int, Item, float]]:
    """Each with its place, from 1, and with the seconds that are left from it on: about `lasts_s` of each, corrected
    by how long those before it took."""
    start = time.monotonic()
    planned_s = [lasts_s(item) for item in items]
    for place, item in enumerate(items):
        left_s = sum(planned_s[place:])
        if place:
            left_s *= (time.monotonic() - start) / sum(planned_s[:place])
        yield place + 1, item, left_s


def rates_bar(what: str, total: int) -> tqdm[NoReturn]:
    """Of rates, to be updated with each."""
    return tqdm(total=total, desc=f"{what:>7}", unit=" rates", unit_scale=True, disable=None, mininterval=0.2)


@asynccontextmanager
async def time_bar(what: str, seconds: float, report: Report) -> AsyncIterator[None]:
    """Of seconds, during the block, with the number of requests that `report` says are confirmed."""
    bar: tqdm[NoReturn] = tqdm(
        total=seconds, desc=what, disable=None, bar_format="{desc}: {n:.0f} of {total:.0f} s |{bar}|{postfix}"
    )

    async def look() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            bar.n = min(loop.time() - start, seconds)
            bar.set_postfix_str(f"{report.confirmed:,} confirmed")
            await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look(), name="progress")
    try:
        yield
    finally:
        looking.cancel()
        bar.close()
