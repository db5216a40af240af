"""How long a `POST /rate` takes at half of its own peak, on a fixed schedule, at the 99th percentile."""

from __future__ import annotations

from bench import accounts
from bench.bars import Options
from bench.brokers.contestants import KAFKA, NATS, RABBIT_QUORUM, REDIS
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.load import OpenLoopReport
from bench.scene import WARM_UP_S

_KEY = "p99"


async def _take(visit: Visit) -> list[Taken]:
    """Void where the schedule was not kept, or requests were not confirmed."""
    stage = visit.stage
    if visit.posted is None:
        await stage.load(stage.api, seconds=WARM_UP_S)
        visit.options.say("the peak")
        visit.posted = await stage.load(stage.api)
        await stage.settle()
    per_s = visit.posted.peak.per_s / 2
    visit.options.say(f"{per_s:,.0f} POST /rate a second on a schedule")
    before, own_before_s = accounts.read(stage.roles), accounts.own_cpu_s()
    report, ledger = await stage.load_on_schedule(stage.api, per_s, _seconds(visit.options))
    used = accounts.cpu_used_s(before, accounts.read(stage.roles))
    used["load"] = accounts.own_cpu_s() - own_before_s
    await stage.settle()
    cpu_us = {role: cpu_s / max(1, ledger.confirmed_rates) * 1e6 for role, cpu_s in used.items()}
    value = None if report.void else report.latency.percentile_s(99) * 1000
    return [Taken(_KEY, value, cpu_us, _sample(per_s, report))]


def _sample(per_s: float, report: OpenLoopReport) -> dict[str, object]:
    return {
        "scheduled_per_s": round(per_s),
        "confirmed_per_s": round(report.confirmed_per_s),
        "statuses": dict(report.statuses),
        "unsent": report.unsent,
        "failed": report.failed,
        "void": report.void,
        "answer_ms": report.latency.told_ms(),
        "generator_late_ms": report.lateness.told_ms(),
    }


def _seconds(options: Options) -> float:
    return 2 * options.seconds


def _lasts_s(options: Options) -> float:
    return _seconds(options) + 3


MEASURE = Measure(
    "p99",
    [
        Asked(
            _KEY,
            "p99 of a POST /rate at half of its own peak, open loop",
            "ms",
            True,
            dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 25.0),
        )
    ],
    _take,
    _lasts_s,
)
