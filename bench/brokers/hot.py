"""What the hot route is worth: the same service with and without it, side by side on one broker and one store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean
from typing import Final

from bench import accounts, machine, wrk
from bench.bars import CONNECTIONS
from bench.brokers.contestants import KAFKA, NATS, RABBIT_QUORUM, REDIS
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.client import Address, Connection
from bench.load import OpenLoopReport, rate_request
from bench.scene import WARM_UP_S, Load, Scene
from stack.member import Member

_COST, _TAIL, _HEADS, _READ, _IDLE = "hot", "hot p99", "heads", "handed over", "idle"
IDLE_CONNECTIONS: Final = 10_000
QUICK_IDLE_CONNECTIONS: Final = 1000
_AT_ONCE: Final = 500
NO_WORSE: Final = 1.0
_BROWSERS: Final = 3000
"""Different heads: more than a replica remembers."""
_READERS: Final = ("aiohttp", "handed over")
_IN_TURNS: Final = (*_READERS, *_READERS[::-1], *_READERS[::-1], *_READERS)
"""The sequence of Thue and Morse: a machine that becomes slower, or slower and slower, favours neither."""


async def _take(visit: Visit) -> list[Taken]:
    """The two in turns, and their tails at the same load: half of what aiohttp's route takes."""
    stage, options = visit.stage, visit.options
    plain = await stage.start_replica("plain", HOT_ROUTE="false")
    both = {"aiohttp": plain, "hot": stage.api}
    for target in both.values():
        await stage.load(target, seconds=WARM_UP_S)
    await stage.settle()
    loads: dict[str, list[Load]] = {name: [] for name in both}
    for name in ("aiohttp", "hot", "hot", "aiohttp"):  # a machine that becomes slower meanwhile favours neither
        options.say(f"POST /rate, {name}")
        loads[name].append(await stage.load(both[name]))
        await stage.settle()
    per_s = fmean(load.peak.per_s for load in loads["aiohttp"]) / 2
    tails = {name: await _tail(stage, target, per_s) for name, target in both.items()}
    await plain.stop()
    spent_us = {name: fmean(load.cpu_us("api") for load in each) for name, each in loads.items()}
    cost = spent_us["hot"] / spent_us["aiohttp"]
    told = {
        name: {
            "answer_ms": tail.latency.told_ms(),
            "generator_late_ms": tail.lateness.told_ms(),
            "doubt": tail.void,
        }
        for name, tail in tails.items()
    }
    return [
        Taken(
            _COST,
            cost,
            loads["hot"][0].cpu_us_per_rate,
            {name: [load.sample() for load in each] for name, each in loads.items()},
        ),
        Taken(_TAIL, p99_ratio(tails["hot"], tails["aiohttp"]), {}, {"scheduled_per_s": round(per_s), **told}),
    ]


def p99_ratio(hot: OpenLoopReport, plain: OpenLoopReport) -> float | None:
    """Of their p99, None if it says nothing. What the generator itself was late is a part of a latency: when it was
    late for the hot route, that is no slower than measured, and the bar may be met in spite of it but not missed."""
    if hot.incomplete or plain.void:
        return None
    ratio = hot.latency.percentile_s(99) / plain.latency.percentile_s(99)
    return None if hot.late and ratio > NO_WORSE else ratio


async def _tail(stage: Scene, target: Member, per_s: float) -> OpenLoopReport:
    stage.options.say(f"{per_s:,.0f} POST /rate a second on a schedule, {target.name}")
    report, _ = await stage.load_on_schedule(target, per_s, 2 * stage.options.seconds)
    await stage.settle()
    return report


async def _take_heads(visit: Visit) -> list[Taken]:
    """The two in turns, under requests as browsers send them through proxies: of ten fields more, of which no two
    requests in a row have the same, so that what the hot route remembers is of no use."""
    stage, options = visit.stage, visit.options
    plain = await stage.start_replica("plain", HOT_ROUTE="false")
    both = {"aiohttp": plain, "hot": stage.api}
    for target in both.values():
        await _browse(stage, target, WARM_UP_S)
    await stage.settle()
    spent_us: dict[str, list[float]] = {name: [] for name in both}
    for name in ("aiohttp", "hot", "hot", "aiohttp"):
        options.say(f"POST /rate of many heads, {name}")
        spent_us[name].append(await _browse(stage, both[name], options.seconds))
        await stage.settle()
    await plain.stop()
    ratio = fmean(spent_us["hot"]) / fmean(spent_us["aiohttp"])
    return [Taken(_HEADS, ratio, {}, {"cpu_us_per_rate": spent_us})]


async def _browse(stage: Scene, target: Member, seconds: float) -> float:
    """CPU microseconds of `target` per confirmed rate."""
    address = Address.of(target.url)
    peak, spent_us = await _load(stage, target, [_browser(address, number) for number in range(_BROWSERS)], seconds)
    stage.book(sent=peak.sent_rates, confirmed=peak.confirmed_rates)
    return spent_us


async def _load(stage: Scene, target: Member, requests: Sequence[bytes], seconds: float) -> tuple[wrk.Peak, float]:
    """Full load of these, and the CPU microseconds of `target` per confirmed one."""
    path = stage.running.stack.directory / "requests"
    wrk.write_requests(path, requests)
    before = accounts.read({"api": [target.pid]})
    peak = await wrk.run_bytes(Address.of(target.url), path, connections=CONNECTIONS, seconds=seconds)
    used = accounts.cpu_used_s(before, accounts.read({"api": [target.pid]}))
    return peak, used["api"] / max(1, peak.confirmed) * 1e6


def _browser(address: Address, number: int) -> bytes:
    fields = [
        f"Host: {address}",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Origin: https://films.example",
        f"Referer: https://films.example/films/{number}",
        f"Cookie: session={number:032x}; theme=dark",
        f"X-Forwarded-For: 192.0.2.{number % 254 + 1}",
        f"X-Request-Id: {number:016x}",
        "Content-Length: 0",
    ]
    return "\r\n".join([f"POST /rate?rate={number % 101}&subject=film-{number} HTTP/1.1", *fields, "", ""]).encode()


async def _take_read(visit: Visit) -> list[Taken]:
    """`GET /rates` on connections that began on the hot route, and on ones that are aiohttp's from the start."""
    stage, options = visit.stage, visit.options
    plain = await stage.start_replica("plain", HOT_ROUTE="false")
    both = dict(zip(_READERS, (plain, stage.api), strict=True))
    for target in both.values():
        await _read(stage, target, WARM_UP_S)
    spent_us: dict[str, list[float]] = {name: [] for name in both}
    for name in _IN_TURNS:
        options.say(f"GET /rates, {name}")
        spent_us[name].append(await _read(stage, both[name], options.seconds))
    await plain.stop()
    ratio = fmean(spent_us["handed over"]) / fmean(spent_us["aiohttp"])
    return [Taken(_READ, ratio, {}, {"cpu_us_per_read": spent_us})]


async def _read(stage: Scene, target: Member, seconds: float) -> float:
    """CPU microseconds of `target` per answer."""
    request = f"GET /rates HTTP/1.1\r\nHost: {Address.of(target.url)}\r\n\r\n".encode()
    _, spent_us = await _load(stage, target, [request], seconds)
    return spent_us


async def _take_idle(visit: Visit) -> list[Taken]:
    """What a replica holds for each of many connections that have been answered once and now say nothing."""
    stage = visit.stage
    number = QUICK_IDLE_CONNECTIONS if visit.options.quick else IDLE_CONNECTIONS
    machine.allow_files()
    visit.options.say(f"{number:,} connections")
    address = Address.of(stage.api.url)
    connections = [Connection(address) for _ in range(number)]
    await _answered(stage, connections[:_AT_ONCE], address)
    before = stage.api_rss_bytes
    try:
        for start in range(_AT_ONCE, number, _AT_ONCE):
            await _answered(stage, connections[start : start + _AT_ONCE], address)
        held_kb = (stage.api_rss_bytes - before) / (number - _AT_ONCE) / 1000
    finally:
        for connection in connections:
            connection.close()
    return [Taken(_IDLE, held_kb, {}, {"connections": number, "replica_bytes_before": before})]


async def _answered(stage: Scene, connections: list[Connection], address: Address) -> None:
    wire = rate_request(address, ("film-1", 5)).wire
    answers = await asyncio.gather(*(connection.exchange(wire) for connection in connections))
    stage.book(sent=len(answers), confirmed=sum(answer.status == 200 for answer in answers))


MEASURES: Final = (
    Measure(
        "hot",
        [
            Asked(
                _COST,
                f"API CPU per confirmed POST /rate, hot route / aiohttp; {CONNECTIONS} connections",
                "",
                True,
                {NATS: 0.55, RABBIT_QUORUM: 0.60, KAFKA: 0.60, REDIS: 0.60},
            ),
            Asked(
                _TAIL,
                "p99 of a POST /rate at half of what aiohttp's route takes, hot route / aiohttp",
                "",
                True,
                dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), NO_WORSE),
            ),
        ],
        _take,
        lambda options: 8 * options.seconds + 2 * WARM_UP_S + 5,
    ),
    Measure(
        "heads",
        [
            Asked(
                _HEADS,
                "the same of POSTs with ten more fields each, of which no two are alike",
                "",
                True,
                {NATS: 0.85},
            )
        ],
        _take_heads,
        lambda options: 4 * options.seconds + 2 * WARM_UP_S + 4,
    ),
    Measure(
        "read",
        [
            Asked(
                _READ,
                "API CPU per GET /rates, on handed-over connections / aiohttp alone",
                "",
                True,
                {NATS: 1.05},
            )
        ],
        _take_read,
        lambda options: len(_IN_TURNS) * options.seconds + 2 * WARM_UP_S + 2,
    ),
    Measure(
        "idle",
        [
            Asked(_IDLE, "a replica's memory per idle connection, thousands of them", "kB", True, {NATS: 12.0}),
        ],
        _take_idle,
        lambda options: 10.0,
        once=True,
    ),
)
