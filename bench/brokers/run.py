"""`python -m bench brokers`: every chosen measure on every chosen broker, in rounds, into one table and one file.

One topology is up at a time: a broker's idle server costs CPU too, and on few cores that would count for its
neighbours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from bench import machine, profiles, wrk
from bench.bars import Options
from bench.brokers import balancer, fold, group, hot, memory, post, tail, tls
from bench.brokers.contestants import CONTESTANTS
from bench.brokers.measures import Measure, Name, Visit
from bench.brokers.plan import Stop, stops
from bench.brokers.results import Results
from bench.client import Address
from bench.folding import WARM_MESSAGES, warm_jvm
from bench.progress import only_warnings, told, with_time_left
from bench.scene import Scene, scene
from core.errors import FanrateError
from stack.programs import MissingProgram
from stack.topology import Broker

MEASURES: Final[dict[Name, Measure]] = {
    measure.name: measure
    for measure in (
        post.MEASURE,
        tail.MEASURE,
        group.MEASURE,
        fold.MEASURE,
        balancer.MEASURE,
        tls.MEASURE,
        memory.MEASURE,
        *hot.MEASURES,
    )
}
ALONE: Final = frozenset(measure.name for measure in hot.MEASURES)
"""Taken only when they are asked for."""
QUICK: Final = Options(seconds=2, repeat=1, quick=True)

QUICK_WARM_MESSAGES: Final = 10_000


async def run(names: Sequence[Name], brokers: Sequence[Broker], options: Options) -> bool:
    """Whether every bar was met and every ledger closed. A broker whose server is missing is left out, with the reason;
    raises MissingProgram before anything starts when none is left, or wrk is missing."""
    only_warnings()
    wrk.command(Address("127.0.0.1", 1), "", connections=1, seconds=1)
    results = Results([measure for name, measure in MEASURES.items() if name in names])
    planned = stops(results.measures, [one for one in CONTESTANTS if one.broker in brokers], options.repeat)
    planned = _possible(planned, results)
    facts = machine.describe()
    try:
        await _make(planned, results, options)
        await _profile(results, options)
    finally:
        facts.pop("versions")
        print("\n".join(results.report(facts, machine.versions())), flush=True)
        print(f"written to {results.write(options)}", flush=True)
    return results.fine


def _possible(planned: Sequence[Stop], results: Results) -> list[Stop]:
    """The stops whose servers are installed."""
    possible = []
    missing: MissingProgram | None = None
    for stop in planned:
        try:
            stop.topology.check_programs()
            possible.append(stop)
        except MissingProgram as exc:
            missing = exc
            results.skipped[stop.contestant] = str(exc)
    if missing is not None and not possible:
        raise missing
    return possible


async def _make(planned: Sequence[Stop], results: Results, options: Options) -> None:
    """Make all stops. What goes wrong on one is noted and fails the run; the others go on."""
    start = time.monotonic()
    for place, stop, left_s in with_time_left(planned, lambda stop: stop.lasts_s(options)):
        say = _progress(start, f"{place} of {len(planned)}, about {left_s / 60:.0f} min left, {stop}")
        try:
            await _visit(stop, results, replace(options, say=say))
        except (FanrateError, OSError) as exc:
            results.troubles.append(f"{stop}: {told(exc)}")
            say("failed")


async def _visit(stop: Stop, results: Results, options: Options) -> None:
    options.say("starting")
    async with scene(options, stop.topology) as stage:
        visit = Visit(stop.contestant, stage)
        try:
            await _warm(visit)
            for measure in stop.measures:
                for taken in await measure.take(visit):
                    results.taken[stop.contestant, taken.key].append(taken)
            results.ledgers.append((stop, await stage.settle()))
        finally:
            results.commands.update(stage.commands)


async def _warm(visit: Visit) -> None:
    if visit.contestant.broker == "kafka":
        await warm_jvm(visit.stage, QUICK_WARM_MESSAGES if visit.options.quick else WARM_MESSAGES)


async def _profile(results: Results, options: Options) -> None:
    """One profile of each service whose bar was missed; of all, if profiles are wanted."""
    wanted = {
        (row.contestant, measure.profile): None
        for measure in results.measures
        for row in results.rows_of(measure)
        if options.profile or not row.bar.met
    }
    start = time.monotonic()
    for contestant, service in wanted:
        say = _progress(start, f"profiles, {contestant.name}")
        try:
            async with scene(replace(options, say=say), Stop(contestant, [post.MEASURE], 1).topology) as stage:
                results.profiles[contestant, service] = await _PROFILES[service](stage)
        except (FanrateError, TimeoutError) as exc:
            say(f"no profile: {told(exc)}")


async def _profile_folding(stage: Scene) -> Path:
    return await profiles.profile_folding(stage, fold.QUICK_AMOUNT)


_PROFILES: Final[dict[Literal["api", "process"], Callable[[Scene], Awaitable[Path]]]] = {
    "api": profiles.profile_api,
    "process": _profile_folding,
}


def _progress(start: float, where: str) -> Callable[[str], None]:
    return lambda line: print(f"{time.monotonic() - start:6.0f} s  {where}: {line}", file=sys.stderr, flush=True)
