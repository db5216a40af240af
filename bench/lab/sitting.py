"""One call of the lab: all runs of an experiment in their order, each written to its file as soon as it ends.

What goes wrong on one run is written as that run's outcome, and the others go on; a disk that takes no more ends it.
What is there already is not measured again: a sitting that was broken off can be resumed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import shlex
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from bench import machine
from bench.bars import Options
from bench.lab import document
from bench.lab.document import Outcome, Run, Setup
from bench.lab.experiment import FANRATE, Experiment, Row
from bench.lab.order import Visit, visits
from bench.lab.peer_stage import peer_stage
from bench.lab.road import Found, Road
from bench.lab.stage import Stage, fanrate_stage
from bench.peers import PEERS, NotBuilt
from core.errors import FanrateError, SettingsError
from core.version import __version__
from stack.programs import MissingProgram

MOST_FAILED: Final = 0.01
"""The share of requests without a confirm beyond which a peak is void."""
_HINDRANCES: Final = (MissingProgram, NotBuilt, SettingsError)


class FolderTaken(FanrateError):
    """The folder holds runs already."""


class CannotWrite(FanrateError):
    """A run's file cannot be written, as with a full disk."""


@dataclass(slots=True)
class Sitting:
    """`say` is told what happens now, in whole lines."""

    experiment: Experiment
    out: Path
    quick: bool
    say: Callable[[str], None]
    id: str = ""
    done: dict[tuple[Row, int], Run] = field(default_factory=dict)
    order: int = 0
    runs: list[Run] = field(default_factory=list)
    """Made now."""

    def open(self, *, resume: bool) -> None:
        """Make the folder, or read what is in it; raises FolderTaken, BadDocument and CannotWrite."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            paths = sorted(self.out.glob("*.json"))
        except OSError as exc:
            raise CannotWrite(f"{self.out}: {exc.strerror}") from exc
        if paths and not resume:
            raise FolderTaken(f"{self.out} holds {len(paths)} runs: --resume goes on with them, --out names another")
        for run in map(document.read, paths):
            self.id = run.sitting
            self.order = max(self.order, run.order)
            if run.outcome in ("measured", "void"):
                self.done[Row(*run.row), run.turn] = run
        self.id = self.id or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"

    @property
    def left(self) -> list[Visit]:
        """What is still to be measured, in its order."""
        planned = visits(self.experiment.rows, self.experiment.repeat, self.id)
        wanted = [
            replace(visit, rows=[row for row in visit.rows if (row, visit.turn) not in self.done]) for visit in planned
        ]
        return [visit for visit in wanted if visit.rows]

    @property
    def runs_left(self) -> int:
        return sum(len(visit.rows) for visit in self.left)

    @property
    def lasts_s(self) -> float:
        """About."""
        return sum(visit.lasts_s for visit in self.left)

    def path_of(self, row: Row, turn: int) -> Path:
        return self.out / f"{file_name(row, turn)}.json"

    async def hold(self) -> list[Run]:
        """All runs that were made now; raises CannotWrite."""
        left = self.left
        start = time.monotonic()
        planned_s = [visit.lasts_s for visit in left]
        for number, visit in enumerate(left):
            left_s = sum(planned_s[number:])
            if number:
                left_s *= (time.monotonic() - start) / sum(planned_s[:number])
            where = f"{number + 1} of {len(left)}, about {left_s / 60:.0f} min left, turn {visit.turn}"
            await self._visit(visit, partial(self._say, start, f"{where}, {describe(visit.setup)}"))
        return self.runs

    def _say(self, start: float, where: str, line: str) -> None:
        self.say(f"{time.monotonic() - start:6.0f} s  {where}: {line}")

    async def _visit(self, visit: Visit, say: Callable[[str], None]) -> None:
        """Bring the setup up and take its rows. A row that fails ends the visit: what died may take others along."""
        say("starting")
        waiting = deque(visit.rows)
        outcome: Outcome = "failed"
        reason = "an earlier run on the same servers failed"
        try:
            async with stage_of(visit.setup, Options(quick=self.quick, say=say)) as stage:
                while waiting and not stage.dead:
                    await self._take(stage, waiting.popleft(), visit.turn, Options(quick=self.quick, say=say))
        except _HINDRANCES as exc:
            outcome, reason = "skipped", str(exc)
        except (CannotWrite, asyncio.CancelledError):
            raise
        except (FanrateError, OSError) as exc:
            reason = _told(exc)
        for row in waiting:
            self._write(row, visit.turn, Found(), outcome, reason)
            say(f"{outcome}: {reason}")

    async def _take(self, stage: Stage, row: Row, turn: int, options: Options) -> None:
        found = Found()
        outcome: Outcome = "measured"
        reason = ""
        try:
            with TemporaryDirectory(prefix="fanrate-") as directory:
                await Road(stage, row.workload, options, Path(directory), found).go()
        except* (FanrateError, OSError) as several:
            outcome, reason = "failed", "; ".join(dict.fromkeys(_told(exc) for exc in _leaves(several)))
        else:
            outcome, reason = _judged(found)
        if reason:
            options.say(f"{outcome}: {reason}")
        self._write(row, turn, found, outcome, reason)

    def _write(self, row: Row, turn: int, found: Found, outcome: Outcome, reason: str) -> None:
        self.order += 1
        run = Run(
            version=document.VERSION,
            experiment=self.experiment.name,
            series=row.series,
            sitting=self.id,
            turn=turn,
            order=self.order,
            at=datetime.now(UTC),
            command=shlex.join(sys.orig_argv),
            commands=list(found.commands),
            fanrate=__version__,
            machine=_machine(row.setup),
            setup=row.setup,
            workload=row.workload,
            outcome=outcome,
            reason=reason,
            calibration_us=round(found.calibration_us, 1),
            warm_up=found.warm_up,
            peak=found.peak,
            tails=found.tails,
            memory_peak_bytes=found.memory_peak_bytes,
            holding=found.holding,
            ledger=found.ledger,
        )
        path = self.path_of(row, turn)
        try:
            document.write(run, path)
        except OSError as exc:
            raise CannotWrite(f"{path}: {exc.strerror}; the runs before it are there, --resume goes on") from exc
        self.runs.append(run)


@asynccontextmanager
async def stage_of(setup: Setup, options: Options) -> AsyncIterator[Stage]:
    """`setup`, up; raises what keeps it from being so."""
    if setup.system == FANRATE:
        async with fanrate_stage(setup, options) as stage:
            yield stage
    else:
        async with peer_stage(setup) as other:
            yield other


def describe(setup: Setup) -> str:
    """In a few words: what differs from the defaults."""
    words = [] if setup.system == FANRATE else [setup.system]
    words.append(setup.broker)
    if setup.durability != "confirmed":
        words.append(setup.durability)
    if setup.replicas > 1:
        words.append(f"{setup.replicas} replicas")
    if setup.processes > 1:
        words.append(f"{setup.processes} processes")
    if setup.dispatch != "group":
        words.append(setup.dispatch)
    if setup.balancer != "none":
        words.append(setup.balancer)
    return " ".join([*words, *setup.settings.split()])


def file_name(row: Row, turn: int) -> str:
    """The same for the same row and turn, readable, and no other's."""
    digest = hashlib.sha256(msgspec.json.encode([row.series, row.setup, row.workload])).hexdigest()[:8]
    words = f"{row.series} {describe(row.setup)} c{row.workload.connections}"
    return f"{re.sub(r'[^a-z0-9.]+', '-', words.lower())}-{digest}-{turn}"


def _judged(found: Found) -> tuple[Outcome, str]:
    """What a run that went to its end is worth."""
    ledger, peak = found.ledger, found.peak
    assert ledger is not None
    assert peak is not None
    if not ledger.closed:
        return "failed", f"the ledger is open: LOSS {ledger.loss} DUP {ledger.dup}"
    if peak.failed > MOST_FAILED * (peak.failed + peak.rates):
        return "void", f"{peak.failed:,} requests at full load were not confirmed"
    return "measured", ""


def _machine(setup: Setup) -> document.Machine:
    facts = machine.describe()
    versions = dict(machine.versions())
    if setup.system != FANRATE:
        versions |= PEERS[setup.system].versions()
    return msgspec.convert({**facts, "versions": versions}, document.Machine)


def _leaves(several: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in several.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc


def _told(error: BaseException) -> str:
    """TimeoutError says nothing of itself."""
    return str(error) or repr(error)
