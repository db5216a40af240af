"""Two replicas behind nginx as it is tuned here, and as it comes: the same replicas, by turns."""

from __future__ import annotations

from bench.bars import CONNECTIONS, Options
from bench.brokers.contestants import NATS
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.scene import WARM_UP_S
from stack import parts

_KEY = "balancer"


async def _take(visit: Visit) -> list[Taken]:
    stage = visit.stage
    tuned = stage.running.nginx
    assert tuned is not None
    upstream_ports = [api.port for api in stage.running.apis]
    part = parts.nginx(
        stage.running.stack.directory, upstream_ports=upstream_ports, balancer="nginx-plain", name="nginx-plain"
    )
    plain = await stage.running.stack.start(part)
    for target in (plain, tuned):
        await stage.load(target, role="balancer", seconds=WARM_UP_S)
        await stage.settle()
    visit.options.say("two replicas behind nginx-plain")
    naive = await stage.load(plain, role="balancer")
    await stage.settle()
    visit.options.say("two replicas behind nginx-tuned")
    good = await stage.load(tuned, role="balancer")
    await stage.settle()
    sample = {"nginx-plain": naive.sample(), "nginx-tuned": good.sample()}
    return [Taken(_KEY, good.peak.per_s / naive.peak.per_s, good.cpu_us_per_rate, sample)]


def _lasts_s(options: Options) -> float:
    return 2 * (options.seconds + WARM_UP_S) + 4


MEASURE = Measure(
    "balancer",
    [
        Asked(
            _KEY,
            f"confirmed rates/s, two replicas behind nginx-tuned / nginx-plain; {CONNECTIONS} connections",
            "",
            False,
            {NATS: 3.0},
        )
    ],
    _take,
    _lasts_s,
    replicas=2,
    balancer="nginx-tuned",
)
