"""`python -m bench spine`: make the chosen measures one after another, write each run's file, and draw the table."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from bench import machine, runs, wrk
from bench.bars import Bar, Measured, Options
from bench.client import Address
from bench.progress import only_warnings
from bench.spine import fold, fresh, group, memory, post
from stack.programs import find

Measure = Literal["post", "group", "fold", "fresh", "memory"]

MEASURES: dict[Measure, Callable[[Options], Awaitable[Measured]]] = {
    "post": post.measure,
    "group": group.measure,
    "fold": fold.measure,
    "fresh": fresh.measure,
    "memory": memory.measure,
}


async def run(chosen: Sequence[Measure], options: Options) -> bool:
    """Whether every bar was met and every ledger closed; raises MissingProgram before anything starts."""
    only_warnings()
    for program in ("redis-server", "nats-server"):
        find(program)
    wrk.command(Address("127.0.0.1", 1), "", connections=1, seconds=1)
    all_measured = []
    for name in chosen:
        measured = await MEASURES[name](replace(options, say=_progress(name)))
        path = _write(measured, options)
        print("\n".join(_lines(measured, path)), flush=True)
        all_measured.append(measured)
    print("\n".join(_table(all_measured)), flush=True)
    return all(measured.fine for measured in all_measured)


def _progress(name: str) -> Callable[[str], None]:
    start = time.monotonic()
    return lambda line: print(f"{name} {time.monotonic() - start:6.1f} s  {line}", file=sys.stderr, flush=True)


def _write(measured: Measured, options: Options) -> Path:
    settings = {name: value for name, value in asdict(replace(options, say=print)).items() if name != "say"}
    results = {
        "bars": [_bar(bar) for bar in measured.bars],
        "ledger": {
            "sent_at_most": measured.verdict.sent,
            "confirmed": measured.verdict.confirmed,
            "counted": measured.verdict.counted,
            "loss": measured.verdict.loss,
            "dup": measured.verdict.dup,
        },
        "notes": measured.notes,
        "profiles": [str(path) for path in measured.profiles],
        "samples": measured.samples,
    }
    return runs.write(f"spine-{measured.measure}", settings, results, commands=measured.commands)


def _bar(bar: Bar) -> dict[str, object]:
    bound = "at_most" if bar.at_most else "at_least"
    return {"name": bar.name, "unit": bar.unit, bound: bar.limit, "value": bar.value, "met": bar.met}


def _lines(measured: Measured, path: Path) -> list[str]:
    return [
        *[f"  {command}" for command in measured.commands],
        *[f"  {note}" for note in measured.notes],
        *[f"  {line}" for line in measured.verdict.lines()],
        f"  {measured.verdict}, written to {path}",
    ]


def _table(all_measured: Sequence[Measured]) -> list[str]:
    facts = machine.describe()
    versions = facts.pop("versions")
    lines = ["", str(facts), str(versions), "", f"{'measure':<62} {'bar':>18}  {'measured':>18}"]
    for measured in all_measured:
        lines += [str(bar) for bar in measured.bars]
        if not measured.verdict.clean:
            lines.append(f"{measured.measure}: {measured.verdict}: the run failed")
        if not all(bar.met for bar in measured.bars):
            lines += [f"  where the time goes: {path}" for path in measured.profiles]
    return lines
