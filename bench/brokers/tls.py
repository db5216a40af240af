"""What the API spends on a confirmed `POST /rate` with its broker behind TLS and a password, against the same without.

A second server of the same kind, with a replica and a consumer of its own, stands beside the first; both serve the same
store. They are loaded in turns, one idle while the other is measured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

from bench.bars import CONNECTIONS, Options
from bench.brokers.contestants import KAFKA, NATS, RABBIT_QUORUM, REDIS
from bench.brokers.measures import Asked, Measure, Taken, Visit
from bench.scene import WARM_UP_S, Load
from stack import parts
from stack.locks import make_locks
from stack.member import Member
from stack.topology import SERVERS

_KEY = "tls"
_BESIDE = {"broker", "process"}
"""Roles of which the accounts know those without locks only."""


async def _take(visit: Visit) -> list[Taken]:
    stage = visit.stage
    async with _locked_api(visit) as locked:
        targets = {"plain": stage.api, "tls": locked}
        for target in targets.values():
            await stage.load(target, seconds=WARM_UP_S)
        loads: dict[str, list[Load]] = {name: [] for name in targets}
        turns = visit.options.repeat
        for turn in range(1, turns + 1):
            for name, target in sorted(targets.items(), reverse=turn % 2 == 0):
                visit.options.say(f"POST /rate, {name}, {turn} of {turns}")
                loads[name].append(await stage.load(target))
                await stage.settle()
    spent_us = {name: median(load.cpu_us("api") for load in each) for name, each in loads.items()}
    sample = {name: [load.sample() for load in each] for name, each in loads.items()}
    shared = {role: us for role, us in loads["tls"][-1].cpu_us_per_rate.items() if role not in _BESIDE}
    return [Taken(_KEY, spent_us["tls"] / spent_us["plain"], shared, sample)]


@asynccontextmanager
async def _locked_api(visit: Visit) -> AsyncIterator[Member]:
    """A replica before a broker with locks; all of it is stopped at the end."""
    stage = visit.stage
    stack, topology = stage.running.stack, stage.topology
    visit.options.say("starting the same behind TLS")
    locks = make_locks(stack.directory / "locks")
    server = SERVERS[topology.broker].make(stack.directory, durability=topology.durability, locks=locks, name="locked")
    members = [await stack.start(server)]
    try:
        env = {**stage.settings, **locks.settings("BROKER")}
        store_url = stage.running.redis.url
        for make, name in ((parts.process, "process-locked"), (parts.api, "api-locked")):
            part = make(stack.directory, broker_url=server.url, store_url=store_url, name=name, env=env)
            members.append(await stack.start(part))
        yield members[-1]
    finally:
        for member in reversed(members):
            await member.stop()


def _lasts_s(options: Options) -> float:
    return 2 * (options.repeat * options.seconds + WARM_UP_S) + 10


MEASURE = Measure(
    "tls",
    [
        Asked(
            _KEY,
            f"API CPU per confirmed POST /rate, TLS and a password / neither; {CONNECTIONS} connections",
            "",
            True,
            dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 1.10),
        )
    ],
    _take,
    _lasts_s,
    once=True,
)
