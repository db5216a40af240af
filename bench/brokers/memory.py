"""What a replica and its consumer hold during minutes at full load: how much at most, and whether it grows.

Growth is the median of the last tenth of the samples above that of the second tenth: the first is for warming up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench import accounts
from bench.bars import Options
from bench.brokers.contestants import KAFKA, NATS, RABBIT_QUORUM, REDIS
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.scene import Scene

FULL_LOAD_S = 300.0
QUICK_FULL_LOAD_S = 30.0
MB = 1_000_000
MOST_MB = 200.0
GROWTH_MB = 10.0
_SAMPLE_EVERY_S = 0.25
_ROLES = {"api": "a replica", "process": "a process"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The resident bytes of each role at one time."""

    at_s: float
    rss_bytes: dict[str, int]


async def _take(visit: Visit) -> list[Taken]:
    stage = visit.stage
    visit.options.say(f"memory at full load for {_full_load_s(visit.options):g} s")
    samples: list[Sample] = []
    sampling = asyncio.create_task(_sample(stage, samples), name="memory")
    try:
        load = await stage.load(stage.api, seconds=_full_load_s(visit.options))
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    await stage.settle()
    told: dict[str, object] = {"load": load.sample(), "memory": samples}
    taken: list[Taken] = []
    for role in _ROLES:
        held = [sample.rss_bytes[role] for sample in samples]
        taken.append(Taken(f"most-{role}", max(held) / MB, load.cpu_us_per_rate, told if not taken else {}))
        taken.append(Taken(f"growth-{role}", growth_bytes(held) / MB))
    return taken


def growth_bytes(held: Sequence[int]) -> float:
    """The median of the last tenth above that of the second tenth."""
    tenth = max(1, len(held) // 10)
    return median(held[-tenth:]) - median(held[tenth : 2 * tenth] or held)


async def _sample(stage: Scene, samples: list[Sample]) -> None:
    start = time.monotonic()
    while True:
        read = accounts.read({"api": [stage.api.pid], "process": [stage.process.pid]})
        held = {role: account.rss_bytes for role, account in read.items()}
        samples.append(Sample(round(time.monotonic() - start, 2), held))
        await asyncio.sleep(_SAMPLE_EVERY_S)


def _full_load_s(options: Options) -> float:
    return QUICK_FULL_LOAD_S if options.quick else FULL_LOAD_S


def _lasts_s(options: Options) -> float:
    return _full_load_s(options) + 3


def _asked(role: str, text: str) -> list[Asked]:
    contestants = (NATS, RABBIT_QUORUM, KAFKA, REDIS)
    most = Asked(
        f"most-{role}", f"memory of {text} at full load, at most", "MB", True, dict.fromkeys(contestants, MOST_MB)
    )
    growth = Asked(
        f"growth-{role}", f"memory of {text} at full load, growth", "MB", True, dict.fromkeys(contestants, GROWTH_MB)
    )
    return [most, growth]


MEASURE = Measure(
    "memory",
    [asked for role, text in _ROLES.items() for asked in _asked(role, text)],
    _take,
    _lasts_s,
    once=True,
)
