"""Group commit against one publish per request by each client's own confirmed form, to the same queue.

The consumer is frozen while load runs and catches up between loads: single rates cost it more than batches do, and on
few cores that would count for the group.
"""

from __future__ import annotations

from bench.bars import CONNECTIONS, Options
from bench.brokers.contestants import KAFKA, NATS, RABBIT_CLASSIC, RABBIT_QUORUM
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.scene import WARM_UP_S

_KEY = "group"


async def _take(visit: Visit) -> list[Taken]:
    stage = visit.stage
    single = await stage.start_app("bench.publish_per_request", stage.broker.url, stage.topology.durability)
    for target in (single, stage.api):
        await stage.load_alone(target, seconds=WARM_UP_S)
    visit.options.say("one publish per request")
    alone = await stage.load_alone(single)
    visit.options.say("group commit")
    grouped = await stage.load_alone(stage.api)
    await single.stop()
    sample = {"publish per request": alone.sample(), "group commit": grouped.sample()}
    return [Taken(_KEY, grouped.peak.per_s / alone.peak.per_s, grouped.cpu_us_per_rate, sample)]


def _lasts_s(options: Options) -> float:
    return 3 * (options.seconds + WARM_UP_S) + 4


MEASURE = Measure(
    "group",
    [
        Asked(
            _KEY,
            f"confirmed rates/s, group commit / one publish per request; {CONNECTIONS} connections, consumer frozen",
            "",
            False,
            {NATS: 1.8, RABBIT_QUORUM: 3.5, RABBIT_CLASSIC: 3.4, KAFKA: 1.25},
        )
    ],
    _take,
    _lasts_s,
)
