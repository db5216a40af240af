"""What a replica holds: over millions of single POSTs at full load, and with the broker frozen under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench import profiles
from bench.bars import Bar, Measured, Options
from bench.scene import WARM_UP_S, Scene, scene

POSTS = 10_000_000
QUICK_POSTS = 1_000_000
FROZEN_S = 20.0
MB = 1_000_000
_SAMPLE_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """The replica's resident bytes at one time, and how many rates had been confirmed at the end of the last load."""

    at_s: float
    rss_bytes: int
    confirmed: int


async def measure(options: Options) -> Measured:
    """One run each: what is asked for is an end state, not a speed."""
    posts = QUICK_POSTS if options.quick else POSTS
    async with scene(options) as stage:
        growth_mb, flat = await _at_full_load(stage, posts)
        options.say(f"the broker frozen for {FROZEN_S:g} s under load")
        frozen = await _with_the_broker_frozen(stage)
        verdict = await stage.settle()
        most_mb = max(sample.rss_bytes for sample in frozen) / MB
        bars = [
            Bar(f"a replica's memory from {posts // 10:,} to {posts:,} single POSTs", "MB more", 10, True, growth_mb),
            Bar("a replica's memory, the broker frozen under load", "MB", 150, True, most_mb),
        ]
        samples: list[dict[str, object]] = [{"of": "full load", "memory": flat}, {"of": "frozen", "memory": frozen}]
        measured = Measured("memory", bars, samples, verdict)
        measured.profiles = await profiles.of_api(stage, measured)
        measured.commands = list(stage.commands)
        return measured


async def _at_full_load(stage: Scene, posts: int) -> tuple[float, list[Sample]]:
    """Megabytes at the end above those after the first tenth."""
    first: int | None = None
    async with _sampling(stage) as samples:
        while stage.confirmed < posts:
            stage.options.say(f"{stage.confirmed:,} of {posts:,} POSTs, {stage.api_rss_bytes / MB:.1f} MB")
            await stage.load(stage.api)
            if first is None and stage.confirmed >= posts // 10:
                first = stage.api_rss_bytes
        last = stage.api_rss_bytes
    return (last - (first or last)) / MB, samples


async def _with_the_broker_frozen(stage: Scene) -> list[Sample]:
    """Single rates on many connections, and a thousand at a time so that the bound of unconfirmed rates is reached."""
    async with _sampling(stage) as samples:
        stage.broker.freeze()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(stage.load(stage.api, connections=256, seconds=FROZEN_S), name="single rates")
                tasks.create_task(stage.load(stage.api, script="rates", seconds=FROZEN_S), name="many rates")
        finally:
            stage.broker.thaw()
        await stage.settle()
        await stage.load(stage.api, seconds=WARM_UP_S)
    return samples


@asynccontextmanager
async def _sampling(stage: Scene) -> AsyncIterator[list[Sample]]:
    samples: list[Sample] = []
    start = time.monotonic()

    async def sample() -> None:
        while True:
            samples.append(Sample(round(time.monotonic() - start, 2), stage.api_rss_bytes, stage.confirmed))
            await asyncio.sleep(_SAMPLE_EVERY_S)

    task = asyncio.create_task(sample(), name="memory")
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
