"""How long after its 200 a rate is visible in Redis, at half of peak load on a fixed schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from statistics import median

from bench import profiles
from bench.bars import CONNECTIONS, Bar, Measured, Options
from bench.client import Address
from bench.freshness import probe
from bench.ledger import Ledger
from bench.load import OpenLoopReport, film_requests, percentile
from bench.open_loop import open_loop
from bench.scene import WARM_UP_S, Scene, scene
from bench.schedule import Schedule


async def measure(options: Options) -> Measured:
    """The 99th percentile of each turn; turns that did not keep to the schedule, or whose requests were not
    confirmed, are void."""
    seconds = max(options.seconds, 10.0)
    async with scene(options) as stage:
        await stage.load(stage.api, seconds=WARM_UP_S)
        options.say("the peak")
        peak = await stage.load(stage.api)
        await stage.settle()
        samples: list[dict[str, object]] = [peak.sample(of="peak")]
        tails: list[float] = []
        for turn in range(1, options.repeat + 1):
            per_s = peak.peak.per_s / 2
            options.say(f"turn {turn} of {options.repeat}: {per_s:,.0f} rates/s on a schedule, {seconds:g} s")
            report, delays_s = await _turn(stage, per_s, seconds)
            samples.append(_sample(turn, per_s, report, delays_s))
            if not report.void:
                tails.append(percentile(delays_s, 99) * 1000)
        verdict = await stage.settle()
        value = median(tails) if tails else None
        bar = Bar("p99 from 200 to visible in Redis, at half of peak", "ms", 100, True, value)
        measured = Measured("fresh", [bar], samples, verdict)
        if void := options.repeat - len(tails):
            measured.notes = [f"{void} of {options.repeat} turns are void: samples say why"]
        measured.profiles = await profiles.of_process(stage, measured)
        measured.commands = list(stage.commands)
        return measured


async def _turn(stage: Scene, per_s: float, seconds: float) -> tuple[OpenLoopReport, list[float]]:
    address = Address.of(stage.api.url)
    ledger = Ledger()
    requests = film_requests(address)
    async with asyncio.TaskGroup() as tasks:
        schedule = tasks.create_task(
            open_loop([address], requests, ledger, Schedule(per_s, seconds), connections=CONNECTIONS),
            name="schedule",
        )
        probes = tasks.create_task(probe(address, stage.running.redis.url, ledger, seconds), name="probes")
    stage.book(sent=ledger.sent_rates, confirmed=ledger.confirmed_rates)
    return schedule.result(), [each.from_confirm_s for each in probes.result()]


def _sample(turn: int, per_s: float, report: OpenLoopReport, delays_s: list[float]) -> dict[str, object]:
    return {
        "turn": turn,
        "scheduled_per_s": round(per_s),
        "confirmed_per_s": round(report.confirmed_per_s),
        "statuses": dict(report.statuses),
        "failed": report.failed,
        "unsent": report.unsent,
        "void": report.void,
        "visible_ms": _percentiles_ms(delays_s),
        "answer_ms": report.latency.told_ms(),
        "generator_late_ms": report.lateness.told_ms(),
        "probes": len(delays_s),
    }


def _percentiles_ms(values_s: Iterable[float]) -> dict[str, float]:
    return {f"p{percent:g}": round(percentile(values_s, percent) * 1000, 2) for percent in (50, 90, 99, 99.9, 100)}
