"""How fast one consumer folds a waiting stream of batches into Redis.

Two kinds of rates by turns: drawn from the real film ratings, where subjects and rates meet as often as they do there;
and each subject rated with every number from 0 to 100 alike, where hardly two rates of a fetch are the same: the worst
case for a fold.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from uuid import uuid4

from bench import accounts
from bench.ledger import Ledger, Verdict
from bench.reading import Patience, Reading, await_counted
from bench.replay import ratings
from bench.spine import profiles
from bench.spine.bars import Bar, Measured, Options
from bench.spine.scene import Scene, scene
from brokers import open_broker
from brokers.base import Broker
from core.batches import VERSION, Batch, encode
from core.errors import BrokerUnavailable, FanrateError
from core.lifecycle import until
from core.rates import Rate

RATES_PER_BATCH = 32
SUBJECTS = 3000
AMOUNT = 3_000_000
QUICK_AMOUNT = 1_000_000
TOPIC = "rates"
_PUBLISHERS = 256
_PUBLISH_S = 30.0
_POLL_S = 0.02


class NothingFolded(FanrateError):
    """The consumer stood still."""


@dataclass(frozen=True, slots=True)
class Folding:
    """From the first rates seen counted to the last: the start of the program is left out."""

    rates: int
    seconds: float
    cpu_s: dict[str, float]

    @property
    def per_s(self) -> float:
        return self.rates / self.seconds

    def sample(self, turn: int, source: str) -> dict[str, object]:
        cpu_us = {role: round(used_s / self.rates * 1e6, 3) for role, used_s in self.cpu_s.items()}
        return {
            "turn": turn,
            "of": source,
            "rates": self.rates,
            "rates_per_s": round(self.per_s),
            "cpu_us_per_rate": cpu_us,
        }


async def measure(options: Options) -> Measured:
    """Fill the stream while no consumer runs, start one, and time it; the data is new each time."""
    amount = QUICK_AMOUNT if options.quick else AMOUNT
    async with scene(options) as stage:
        samples: list[dict[str, object]] = []
        speeds: dict[str, list[float]] = {name: [] for name in _SOURCES}
        verdicts: list[Verdict] = []
        for turn, (name, rates) in itertools.product(range(1, options.repeat + 1), _SOURCES.items()):
            options.say(f"turn {turn} of {options.repeat}, {name}: filling the stream with {amount:,} rates")
            before, ledger = await fill(stage, rates(), amount)
            options.say(f"turn {turn} of {options.repeat}, {name}: folding")
            await stage.process.start(wait=False)
            folding = await _watch(stage, before.total, amount)
            verdicts.append(await await_counted(stage.reader, ledger, before))
            samples.append(folding.sample(turn, name))
            speeds[name].append(folding.per_s)
        bars = [
            Bar(f"rates/s one consumer folds, {RATES_PER_BATCH} a batch, {name}", "rates/s", 200_000, False, median(of))
            for name, of in speeds.items()
        ]
        worst = max(verdicts, key=lambda verdict: len(verdict.findings))
        measured = Measured("fold", bars, samples, worst)
        if options.profile or not measured.fine:
            options.say("profiling the consumer")
            before, _ = await fill(stage, _film_ratings(), QUICK_AMOUNT)
            profile = await profiles.start_process(stage)
            await _watch(stage, before.total, QUICK_AMOUNT)
            measured.profiles = [await profile.finish()]
        measured.commands = list(stage.commands)
        return measured


def _film_ratings() -> Iterator[Rate]:
    """Without end, in a random order that is the same each time."""
    known = ratings()
    choose = random.Random(5307).choice
    while True:
        yield choose(known)


def _all_alike() -> Iterator[Rate]:
    """Without end; each of 3 000 subjects with each rate before any comes again."""
    return ((f"film-{number % SUBJECTS}", number * 7 % 101) for number in itertools.count())


_SOURCES: dict[str, Callable[[], Iterator[Rate]]] = {"film ratings": _film_ratings, "all alike": _all_alike}


async def fill(stage: Scene, rates: Iterator[Rate], amount: int) -> tuple[Reading, Ledger]:
    """Stop the consumer and publish `amount` of `rates`; what was counted before, and the ledger of what is new."""
    await stage.process.stop()
    ledger = Ledger()
    before = await _read_all(stage)
    broker = open_broker(stage.running.nats.url, name="fanrate-bench")
    await broker.start()
    try:
        if not await until(lambda: broker.connected, _PUBLISH_S):
            raise BrokerUnavailable(f"no broker at {stage.running.nats.url}")
        batches = _batches(rates, amount, ledger)
        async with asyncio.TaskGroup() as tasks:
            for number in range(_PUBLISHERS):
                tasks.create_task(_publish(broker, batches, ledger), name=f"fill-{number}")
    finally:
        await broker.close()
    return before, ledger


async def _publish(broker: Broker, batches: Iterator[tuple[list[Rate], bytes]], ledger: Ledger) -> None:
    for rates, body in batches:
        await broker.publish(TOPIC, body, _PUBLISH_S)
        ledger.confirm(rates)


def _batches(source: Iterator[Rate], amount: int, ledger: Ledger) -> Iterator[tuple[list[Rate], bytes]]:
    producer = uuid4().hex
    for sequence in range(amount // RATES_PER_BATCH):
        rates = list(itertools.islice(source, RATES_PER_BATCH))
        opened = (sequence + 1) * RATES_PER_BATCH
        ledger.send(rates)
        yield rates, encode(Batch(VERSION, 0, producer, sequence, opened, time.time(), rates))


async def _read_all(stage: Scene) -> Reading:
    """A reading of every subject there is."""
    return await stage.reader.read([row.subject for row in await stage.reader.all_subjects()])


async def _watch(stage: Scene, counted_before: int, amount: int) -> Folding:
    waiting = Patience(_PUBLISH_S)
    first: tuple[int, float, dict[str, accounts.Account]] | None = None
    while True:
        counted = (await stage.reader.totals()).count - counted_before
        now = time.monotonic()
        if counted and first is None:
            first = counted, now, accounts.read(stage.roles)
        if first and counted >= amount // RATES_PER_BATCH * RATES_PER_BATCH:
            break
        waiting.observe(counted)
        if waiting.over:
            raise NothingFolded(f"{counted:,} of {amount:,} rates were counted, and no more for {_PUBLISH_S:g} s")
        await asyncio.sleep(_POLL_S)
    used = accounts.cpu_used_s(first[2], accounts.read(stage.roles))
    return Folding(counted - first[0], max(now - first[1], _POLL_S), used)
