"""`python -m bench lesson`: the experiment that this project grew from, made again, and drawn beside what it found."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import psutil

from bench import machine, runs, wrk
from bench.bars import Options
from bench.client import Address
from bench.lab.sitting import CannotWrite
from bench.lesson import page
from bench.lesson.counting import all_counted, verdict
from bench.lesson.plan import BROKERS, CONNECTIONS, Row, Stop, stops
from bench.lesson.results import Results, Taken
from bench.progress import only_warnings, told, with_time_left
from bench.runs import OUT
from bench.scene import Scene, scene
from core.errors import FanrateError
from stack import parts
from stack.member import Member
from stack.programs import MissingProgram
from stack.topology import Broker

PAGE: Final = "lesson.md"
_SERVERS: Final = 3
_CLOCKS: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The time of guests is within that of their users."""


async def run(brokers: Sequence[Broker] = BROKERS, *, seconds: float = 10, out: Path = OUT) -> bool:
    """Whether every row was measured and every ledger closed. What needs a server that is not installed is left out,
    with the reason; raises, before anything starts, CannotWrite, and MissingProgram when nothing is left or wrk is
    missing. What was measured is printed and written, whatever ends this."""
    only_warnings()
    wrk.command(Address("127.0.0.1", 1), "", connections=1, seconds=1)
    facts = machine.describe()
    results = Results(seconds)
    planned = _possible(stops(brokers), results)
    _check_writable(out)
    try:
        await _make(planned, results, out)
    except asyncio.CancelledError:
        results.interrupted = True
        raise
    finally:
        _tell(results, facts, out)
    return results.fine


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as exc:
        raise CannotWrite(f"{out}: {exc.strerror}") from exc


def _tell(results: Results, facts: Mapping[str, object], out: Path) -> None:
    """Printed first: a disk that is full by now takes no page."""
    text = page.page(results, facts)
    print(text, flush=True)
    path = out / PAGE
    with _noting(path.name, results):
        path.write_text(text, encoding="utf-8")
        print(f"written to {path}", flush=True)


@contextmanager
def _noting(name: str, results: Results) -> Iterator[None]:
    """A file called `name` that cannot be written fails the run in one line, and ends nothing."""
    try:
        yield
    except OSError as exc:
        results.failed[name] = f"not written: {exc}"
        print(f"{name}: {results.failed[name]}", file=sys.stderr, flush=True)


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
            results.skipped |= {row.title: str(exc) for row in stop.rows}
    if missing is not None and not possible:
        raise missing
    return possible


async def _make(planned: Sequence[Stop], results: Results, out: Path) -> None:
    """Make all stops. What goes wrong on one is noted and fails the run; the others go on."""
    start = time.monotonic()
    for _, stop, left_s in with_time_left(planned, lambda stop: stop.lasts_s(results.seconds)):
        say = _progress(start, left_s)
        try:
            await _visit(stop, results, out, say)
        except (FanrateError, OSError) as exc:
            results.fail(stop, told(exc))
            say(f"failed: {told(exc)}")


def _progress(start: float, left_s: float) -> Callable[[str], None]:
    def say(line: str) -> None:
        left = f"{left_s / 60:.0f} min" if left_s > 90 else f"{left_s:.0f} s"
        print(f"{time.monotonic() - start:6.0f} s, about {left} left: {line}", file=sys.stderr, flush=True)

    return say


async def _visit(stop: Stop, results: Results, out: Path, say: Callable[[str], None]) -> None:
    say(f"{stop.rows[0].title}: starting")
    async with scene(Options(seconds=results.seconds, say=say), stop.topology) as stage:
        await _warm(stop, stage)
        for row in stop.rows:
            say(row.title)
            taken = await _take(row, stage, row.seconds(results.seconds))
            results.take(taken)
            found = f"failed: {taken.trouble}" if taken.trouble else f"{taken.peak.per_s:,.1f} requests/s, {taken.told}"
            say(f"{row.title}: {found}")
            commands = [taken.command, *stage.commands]
            name = f"lesson-{row.key}"
            with _noting(name, results):
                runs.write(name, asdict(stop.topology), _document(taken), commands=commands, folder=out)


async def _warm(stop: Stop, stage: Scene) -> None:
    """The same load, for a moment; a slow handler is spared it, for it has nothing to warm and much to do."""
    if not any("WORK_S" in env for env in (stop.topology.api_env, stop.topology.process_env)):
        await _send(stage, stage.running.url, stop.warm_up_s)
        await stage.settle()


async def _take(row: Row, stage: Scene, seconds: float) -> Taken:
    """wrk on the row's target, until all of it is counted."""
    before = (await stage.reader.totals()).count - stage.counted_before
    starts = {member: member.starts for each in stage.members.values() for member in each}
    url, apps = await _TARGETS[row.target](stage)
    starts |= dict.fromkeys(apps, 1)
    clocks = psutil.cpu_times()
    output, peak = await _send(stage, url, seconds)
    stolen = _stolen(clocks, psutil.cpu_times())
    answered_at = time.monotonic()
    after = await all_counted(stage.reader, stage.counted_before + before + peak.confirmed_rates)
    counted_s = time.monotonic() - answered_at
    after -= stage.counted_before
    died = [member.name for member, began in starts.items() if member.starts > began or not member.running]
    for app in reversed(apps):
        await app.stop()
    found = verdict(sent=stage.sent, before=before, confirmed=peak.confirmed_rates, after=after)
    return Taken(row, output, peak, found, counted_s, shlex.join(_command(url, seconds)), stolen, died)


def _stolen(before: object, after: object) -> float:
    """The share of the processors' time that the machine's host gave to others; 0 where that is not told."""
    spent = [getattr(after, name) - getattr(before, name) for name in _CLOCKS if hasattr(after, name)]
    stolen_s = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
    return float(stolen_s / max(sum(spent), 1e-9))


async def _send(stage: Scene, url: str, seconds: float) -> tuple[str, wrk.Peak]:
    address = Address.of(url)
    output = await wrk.told(address, "rate", connections=CONNECTIONS, threads=CONNECTIONS, seconds=seconds)
    peak = wrk.peak(output, "rate", connections=CONNECTIONS)
    stage.book(sent=peak.sent_rates, confirmed=peak.confirmed_rates)
    return output, peak


def _command(url: str, seconds: float) -> list[str]:
    path = "bench/wrk/rate.lua"
    return wrk.command(Address.of(url), path, connections=CONNECTIONS, threads=CONNECTIONS, seconds=seconds)


async def _service(stage: Scene) -> tuple[str, list[Member]]:
    return stage.running.url, []


async def _publish_per_request(stage: Scene) -> tuple[str, list[Member]]:
    app = await stage.start_app("bench.publish_per_request", stage.broker.url, stage.topology.durability)
    return app.url, [app]


async def _lingering(stage: Scene) -> tuple[str, list[Member]]:
    app = await stage.start_app("bench.lesson.lingering", stage.broker.url)
    return app.url, [app]


async def _three_lingering(stage: Scene) -> tuple[str, list[Member]]:
    apps = [
        await stage.start_app("bench.lesson.lingering", stage.broker.url, name=f"lingering-{number}")
        for number in range(1, _SERVERS + 1)
    ]
    part = parts.nginx(
        stage.running.stack.directory,
        upstream_ports=[app.port for app in apps],
        balancer="nginx-plain",
        name="nginx-lingering",
    )
    balancer = await stage.running.stack.start(part)
    return balancer.url, [*apps, balancer]


_TARGETS: Final = {
    "service": _service,
    "publish per request": _publish_per_request,
    "lingering": _lingering,
    "three lingering": _three_lingering,
}


def _document(taken: Taken) -> dict[str, object]:
    row, verdict = taken.row, taken.verdict
    return {
        "row": row,
        "failed": taken.trouble,
        "output": taken.output,
        "peak": taken.peak,
        "requests_per_s": round(taken.peak.per_s, 2),
        "stolen_share_of_processors": round(taken.stolen, 4),
        "counted_s_after_the_last_answer": round(taken.counted_s, 2),
        "ledger": {
            "sent_at_most": verdict.sent,
            "confirmed": verdict.confirmed,
            "counted": verdict.counted,
            "loss": verdict.loss,
            "dup": verdict.dup,
        },
    }
