"""How fast one consumer folds a waiting stream of batches into Redis.

Two kinds of rates by turns: drawn from the real film ratings, where subjects and rates meet as often as they do there;
and each subject rated with every number from 0 to 100 alike, where hardly two rates of a fetch are the same: the worst
case for a fold.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from statistics import median

from bench import profiles
from bench.bars import Bar, Measured, Options
from bench.folding import RATES_PER_BATCH, fill, film_ratings, watch
from bench.ledger import Verdict
from bench.reading import await_counted
from bench.scene import scene
from core.rates import Rate

SUBJECTS = 3000
AMOUNT = 3_000_000
QUICK_AMOUNT = 1_000_000


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
            folding = await watch(stage, before.total, amount)
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
            measured.profiles = [await profiles.profile_folding(stage, QUICK_AMOUNT)]
        measured.commands = list(stage.commands)
        return measured


def _all_alike() -> Iterator[Rate]:
    """Without end; each of 3 000 subjects with each rate before any comes again."""
    return ((f"film-{number % SUBJECTS}", number * 7 % 101) for number in itertools.count())


_SOURCES: dict[str, Callable[[], Iterator[Rate]]] = {"film ratings": film_ratings, "all alike": _all_alike}
