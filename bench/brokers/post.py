"""What the API spends on a confirmed `POST /rate`, against a handler that does nothing, on the same interpreter.

With the consumer running, as in service.
"""

from __future__ import annotations

from bench.bars import CONNECTIONS, Options
from bench.brokers.contestants import KAFKA, NATS, RABBIT_QUORUM, REDIS
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.scene import WARM_UP_S

_KEY = "post"


async def _take(visit: Visit) -> list[Taken]:
    stage = visit.stage
    baseline = await stage.start_app("bench.baseline_app")
    for target, role in ((baseline, "baseline"), (stage.api, "api")):
        await stage.load(target, role=role, seconds=WARM_UP_S)
    await stage.settle()
    visit.options.say("the handler that does nothing")
    nothing = await stage.load(baseline, role="baseline")
    visit.options.say("POST /rate")
    visit.posted = posted = await stage.load(stage.api)
    await stage.settle()
    await baseline.stop()
    ratio = posted.cpu_us("api") / nothing.cpu_us("baseline")
    sample = {"nothing": nothing.sample(), "post": posted.sample()}
    return [Taken(_KEY, ratio, posted.cpu_us_per_rate, sample)]


def _lasts_s(options: Options) -> float:
    return 2 * (options.seconds + WARM_UP_S) + 3


MEASURE = Measure(
    "post",
    [
        Asked(
            _KEY,
            f"API CPU per confirmed POST /rate / nothing; {CONNECTIONS} connections, consumer running",
            "",
            True,
            {NATS: 1.05, RABBIT_QUORUM: 1.12, KAFKA: 1.20, REDIS: 1.15},
        )
    ],
    _take,
    _lasts_s,
)
