"""Progress bars: on a terminal, and nothing elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from tqdm import tqdm

from bench.load import Report

_LOOK_S = 0.2


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
