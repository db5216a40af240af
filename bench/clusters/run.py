"""`python -m bench clusters`: each chosen kind of cluster goes its course, against the bars."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Final, get_args

from bench import machine, runs
from bench.bars import Bar
from bench.clusters import course
from bench.clusters.course import Course, Kind
from bench.progress import only_warnings
from core.errors import FanrateError
from stack.programs import MissingProgram
from stack.topology import Topology

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MOST_UNCONFIRMED_S: Final = 10.0
MOST_UNCOUNTED_S: Final = 15.0


async def run(kinds: Sequence[Kind]) -> bool:
    """Whether every bar was met and every ledger closed. Raises MissingProgram before anything starts."""
    only_warnings()
    for kind in kinds:
        Topology(broker="nats" if kind == "redis" else kind).check_programs()
    courses: list[Course] = []
    fine = True
    for kind in kinds:
        try:
            done = await _go(kind)
        except MissingProgram:
            raise
        except FanrateError as exc:
            print(f"{kind}: {exc}", file=sys.stderr, flush=True)
            fine = False
            continue
        courses.append(done)
        print("\n".join(lines(done)), flush=True)
        fine = fine and met(done)
    path = runs.write("clusters", {"kinds": list(kinds)}, courses, commands=[])
    print(f"written to {path}", flush=True)
    return fine


async def _go(kind: Kind) -> Course:
    """One course, with its files in a folder of its own; the logs stay there until the next."""
    directory = runs.OUT / f"cluster-{kind}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        return await course.run(kind, directory, lambda line: print(f"{kind}: {line}", flush=True))
    finally:
        shutil.rmtree(directory / "data", ignore_errors=True)


def bars(done: Course) -> Iterator[Bar]:
    for kill in done.kills:
        name = f"{done.kind}: {kill.node} killed, longest time without"
        yield Bar(f"{name} a confirm", "s", MOST_UNCONFIRMED_S, True, kill.unconfirmed_s)
        yield Bar(f"{name} counting", "s", MOST_UNCOUNTED_S, True, kill.uncounted_s)


def met(done: Course) -> bool:
    return done.verdict.clean and all(bar.met for bar in bars(done))


def lines(done: Course) -> list[str]:
    """The result for people; the last line is the verdict."""
    verdict = done.verdict
    return [
        f"{verdict.sent} rates sent, {done.confirmed} confirmed, {verdict.counted} counted; {versions(done.kind)}",
        *map(str, bars(done)),
        *verdict.lines(),
        f"{done.kind}: {verdict}",
    ]


def versions(kind: Kind) -> str:
    """Of the server whose nodes were killed."""
    program = {"nats": "nats-server", "kafka": "kafka", "rabbit": "rabbitmq-server", "redis": "redis-server"}[kind]
    return f"{program} {machine.versions().get(program, '?')}"
