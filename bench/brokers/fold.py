"""How fast one consumer folds what a broker holds into Redis: film ratings, published before it starts."""

from __future__ import annotations

from bench.bars import Options
from bench.brokers.contestants import KAFKA, NATS, RABBIT_QUORUM, REDIS
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.folding import RATES_PER_BATCH, fill, film_ratings, watch
from bench.ledger import LedgerOpen
from bench.reading import await_counted

AMOUNT = 1_600_000
QUICK_AMOUNT = 320_000
_KEY = "fold"


async def _take(visit: Visit) -> list[Taken]:
    stage = visit.stage
    amount = _amount(visit.options)
    visit.options.say(f"publishing {amount:,} rates, {RATES_PER_BATCH} a batch")
    before, ledger = await fill(stage, film_ratings(), amount)
    visit.options.say("folding")
    await stage.process.start(wait=False)
    folding = await watch(stage, before.total, amount)
    verdict = await await_counted(stage.reader, ledger, before)
    if not verdict.clean:
        raise LedgerOpen(verdict)
    return [Taken(_KEY, folding.per_s, folding.cpu_us, {"rates": folding.rates, "seconds": folding.seconds})]


def _amount(options: Options) -> int:
    return QUICK_AMOUNT if options.quick else AMOUNT


def _lasts_s(options: Options) -> float:
    return _amount(options) / 80_000 + 6


MEASURE = Measure(
    "fold",
    [
        Asked(
            _KEY,
            f"rates/s one consumer folds into Redis, {RATES_PER_BATCH} a batch, film ratings",
            "rates/s",
            False,
            dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 150_000),
        )
    ],
    _take,
    _lasts_s,
    profile="process",
)
