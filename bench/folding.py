"""Messages published beforehand, and how fast one consumer folds them into Redis."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

from bench import accounts
from bench.ledger import Ledger
from bench.reading import Patience, Reading
from bench.replay import ratings
from bench.scene import Scene
from brokers import open_broker
from brokers.base import Broker
from core.batches import VERSION, Batch, encode
from core.counting import GROUP
from core.durability import Durability
from core.endpoints import Endpoint
from core.errors import BrokerUnavailable, FanrateError
from core.lifecycle import until
from core.rates import Rate

RATES_PER_BATCH = 32
WARM_MESSAGES = 100_000
"""For `warm_jvm`, where there is time."""
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
        return {
            "turn": turn,
            "of": source,
            "rates": self.rates,
            "rates_per_s": round(self.per_s),
            "cpu_us_per_rate": self.cpu_us,
        }

    @property
    def cpu_us(self) -> dict[str, float]:
        """CPU microseconds of each role per rate."""
        return {role: round(used_s / self.rates * 1e6, 3) for role, used_s in self.cpu_s.items()}


def film_ratings() -> Iterator[Rate]:
    """Without end, in a random order that is the same each time."""
    known = ratings()
    choose = random.Random(5307).choice
    while True:
        yield choose(known)


async def fill(stage: Scene, rates: Iterator[Rate], amount: int) -> tuple[Reading, Ledger]:
    """Stop the consumer and publish `amount` of `rates`; what was counted before, and the ledger of what is new."""
    await stage.process.stop()
    before = await _read_all(stage)
    return before, await publish(stage, rates, amount)


async def publish(
    stage: Scene, rates: Iterator[Rate], amount: int, *, per_batch: int = RATES_PER_BATCH, topic: str = TOPIC
) -> Ledger:
    """Publish `amount` of `rates` past the API, many batches at a time. Raises BrokerUnavailable, and what `publish` of
    the broker raises."""
    ledger = Ledger()
    try:
        async with connected(stage.broker.url, stage.topology.durability) as broker:
            await broker.ensure(topic, [GROUP])
            batches = _batches(rates, amount, per_batch, ledger)
            async with asyncio.TaskGroup() as tasks:
                for number in range(_PUBLISHERS):
                    tasks.create_task(_publish(broker, topic, batches, ledger), name=f"publish-{number}")
    except* FanrateError as several:
        raise several.exceptions[0] from None
    finally:
        stage.book(sent=ledger.sent_rates, confirmed=ledger.confirmed_rates)
    return ledger


@asynccontextmanager
async def connected(url: str, durability: Durability) -> AsyncIterator[Broker]:
    """Our own adapter for the broker at `url`; raises BrokerUnavailable."""
    broker = open_broker(Endpoint.of(url), name="fanrate-bench", durability=durability)
    await broker.start()
    try:
        if not await until(lambda: broker.connected, _PUBLISH_S):
            raise BrokerUnavailable(f"no broker at {url}")
        yield broker
    finally:
        await broker.close()


async def warm_jvm(stage: Scene, messages: int, *, topic: str = TOPIC) -> None:
    """A JVM compiles what has run often: Kafka's first messages cost several times what later ones do."""
    stage.options.say(f"warming the JVM with {messages:,} messages")
    await publish(stage, film_ratings(), messages, per_batch=1, topic=topic)
    await stage.settle()


async def watch(stage: Scene, counted_before: int, amount: int) -> Folding:
    """Time the consumer until all of `amount` are counted; raises NothingFolded."""
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


async def _publish(broker: Broker, topic: str, batches: Iterator[tuple[list[Rate], bytes]], ledger: Ledger) -> None:
    for rates, body in batches:
        await broker.publish(topic, body, _PUBLISH_S)
        ledger.confirm(rates)


def _batches(source: Iterator[Rate], amount: int, per_batch: int, ledger: Ledger) -> Iterator[tuple[list[Rate], bytes]]:
    producer = uuid4().hex
    for sequence in range(amount // per_batch):
        rates = list(itertools.islice(source, per_batch))
        ledger.send(rates)
        yield rates, encode(Batch(VERSION, 0, producer, sequence, (sequence + 1) * per_batch, time.time(), rates))


async def _read_all(stage: Scene) -> Reading:
    """A reading of every subject there is."""
    return await stage.reader.read([row.subject for row in await stage.reader.all_subjects()])
