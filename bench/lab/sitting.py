"""One call of the lab: all runs of an experiment in their order, each written to its file as soon as it ends.

What goes wrong on one run is written as that run's outcome, and the others go on; a disk that takes no more ends it.
What is there already is not measured again: a sitting that was broken off can be resumed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from bench import machine
from bench.bars import Options
from bench.lab import document
from bench.lab.document import FANRATE, Outcome, Run, Setup, Workload
from bench.lab.experiment import Experiment, Row
from bench.lab.order import Turn, turns
from bench.lab.peer_stage import peer_stage
from bench.lab.road import Found, Road
from bench.lab.source import commit
from bench.lab.stage import Stage, fanrate_stage
from bench.peers import PEERS, NotBuilt
from bench.progress import told, with_time_left
from bench.runs import SCENE
from core.errors import FanrateError, SettingsError
from core.version import __version__
from stack.programs import MissingProgram

MOST_FAILED: Final = 0.01
"""The share of requests without a confirm beyond which a peak is void."""
MOST_LETTERS: Final = 120
"""Of a file's name, before what makes it one row's."""
LEAST_FREE_BYTES: Final = 256 * 2**20
"""On the disk of the sitting, where the servers of a run keep their data too. With less they refuse, lose or stop, and
a run is one of the disk."""
_HINDRANCES: Final = (MissingProgram, NotBuilt, SettingsError)


class FolderTaken(FanrateError):
    """The folder holds runs already."""


class CannotWrite(FanrateError):
    """A run's file cannot be written, or what its servers store could not, as with a full disk."""


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
    disturbed: set[tuple[Row, int]] = field(default_factory=set)
    """Of which a measured run stands there, to be measured again."""
    runs: list[Run] = field(default_factory=list)
    """Made now."""

    def open(self, *, resume: bool, again: bool = False) -> None:
        """Make the folder, or read what is in it, to go on with; `again` leaves out what was disturbed. Raises
        FolderTaken, BadDocument and CannotWrite."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            paths = sorted(self.out.glob("*.json"))
        except OSError as exc:
            raise CannotWrite(f"{self.out}: {exc.strerror}") from exc
        if paths and not resume:
            raise FolderTaken(f"{self.out} holds {len(paths)} runs: --resume goes on with them, --out names another")
        if resume:
            self._sweep()
        build = __version__, commit()
        for run in map(document.read, paths):
            self.id = run.sitting
            self.order = max(self.order, run.order)
            if run.quick != self.quick:
                raise FolderTaken(f"{self.out} holds runs made {'with' if run.quick else 'without'} --quick")
            if (run.fanrate, run.commit) != build:
                raise FolderTaken(
                    f"{self.out} holds runs of another build, {run.fanrate} {run.commit}: --out names another"
                )
            key = Row(*run.row), run.turn
            if run.outcome not in ("measured", "void"):
                continue
            if again and run.disturbed:
                self.disturbed.add(key)
            else:
                self.done[key] = run
        self.id = self.id or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"

    @property
    def left(self) -> list[Turn]:
        """What is still to be measured, in its order."""
        planned = turns(self.experiment.rows, self.experiment.repeat, self.id)
        return [turn for turn in planned if (turn.row, turn.number) not in self.done]

    @property
    def lasts_s(self) -> float:
        """About."""
        return sum(turn.lasts_s for turn in self.left)

    def path_of(self, turn: Turn) -> Path:
        return self.out / f"{file_name(turn.row, turn.number)}.json"

    def _sweep(self) -> None:
        """Remove the servers' data of a run that was killed; of one that goes on nobody resumes the sitting."""
        for left in self.out.glob(f"{SCENE}*/"):
            shutil.rmtree(left, ignore_errors=True)

    async def hold(self) -> list[Run]:
        """All runs that were made now; raises CannotWrite, also when the disk is nearly full."""
        left = self.left
        start = time.monotonic()
        for place, turn, left_s in with_time_left(left, lambda turn: turn.lasts_s):
            where = f"{place} of {len(left)}, about {left_s / 60:.0f} min left"
            what = f"turn {turn.number}, {describe(turn.row)}"
            self._check_room()
            await self._take(turn, partial(self._say, start, f"{where}, {what}"))
        return self.runs

    def _say(self, start: float, where: str, line: str) -> None:
        self.say(f"{time.monotonic() - start:6.0f} s  {where}: {line}")

    async def _take(self, turn: Turn, say: Callable[[str], None]) -> None:
        """Bring the setup up, measure, and write what came out, whatever that is."""
        found = Found()
        outcome: Outcome = "measured"
        reason = ""
        say("starting")
        try:
            await self._measure(turn.row, Options(quick=self.quick, say=say), found)
        except* _HINDRANCES as several:
            outcome, reason = "skipped", _reasons(several)
        except* (FanrateError, OSError) as several:
            outcome, reason = "failed", _reasons(several)
        else:
            outcome, reason = _judged(found)
        if reason:
            say(f"{outcome}: {reason}")
            self._check_room()
        self._write(turn, found, outcome, reason)

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.out).free
        if free < LEAST_FREE_BYTES:
            said = f"{free / 2**20:.0f} MiB free on its disk, less than {LEAST_FREE_BYTES / 2**20:.0f}"
            raise CannotWrite(f"{self.out}: {said}; the runs before are there, --resume goes on")

    async def _measure(self, row: Row, options: Options, found: Found) -> None:
        check(row)
        with TemporaryDirectory(prefix=SCENE, dir=self.out) as name:
            directory = Path(name)
            async with stage_of(row.setup, options, directory) as stage:
                found.service_settings = stage.service_settings
                await Road(stage, row.workload, options, directory, found).go()

    def _write(self, turn: Turn, found: Found, outcome: Outcome, reason: str) -> None:
        self.order += 1
        row = turn.row
        run = Run(
            version=document.VERSION,
            experiment=self.experiment.name,
            series=row.series,
            sitting=self.id,
            turn=turn.number,
            order=self.order,
            at=datetime.now(UTC),
            command=shlex.join(sys.orig_argv),
            commands=list(found.commands),
            fanrate=__version__,
            quick=self.quick,
            commit=commit(),
            machine=_machine(row.setup),
            setup=row.setup,
            service_settings=found.service_settings,
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
        self.runs.append(run)
        if outcome != "measured" and (row, turn.number) in self.disturbed:
            return
        path = self.path_of(turn)
        try:
            document.write(run, path)
        except OSError as exc:
            raise CannotWrite(f"{path}: {exc.strerror}; the runs before it are there, --resume goes on") from exc


def check(row: Row) -> None:
    """Raises SettingsError for a row that cannot be, or would say it is what it is not."""
    setup, workload = row.setup, row.workload
    if setup.balancer == "none" and workload.connections < setup.replicas:
        raise SettingsError(f"{workload.connections} connections for {setup.replicas} replicas without a balancer")
    if setup.system == FANRATE:
        return
    plain = Setup(setup.broker)
    for name in ("processes", "dispatch", "settings"):
        if getattr(setup, name) != getattr(plain, name):
            raise SettingsError(f"{setup.system} knows no {name}")
    if workload.rates_per_request > 1:
        raise SettingsError(f"{setup.system} takes one rate per request")


@asynccontextmanager
async def stage_of(setup: Setup, options: Options, directory: Path) -> AsyncIterator[Stage]:
    """`setup`, up, with its files in `directory`; raises what keeps it from being so."""
    if setup.system == FANRATE:
        async with fanrate_stage(setup, options, directory) as stage:
            yield stage
    else:
        async with peer_stage(setup, directory) as other:
            yield other


def describe(row: Row) -> str:
    """In a few words: what differs from the defaults."""
    setup, workload = row.setup, row.workload
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
    words += setup.settings.split()
    words.append(f"c{workload.connections}")
    if workload.rates_per_request > 1:
        words.append(f"{workload.rates_per_request} rates a request")
    if workload.subjects != Workload().subjects:
        words.append(f"{workload.subjects} subjects")
    return " ".join(words)


def file_name(row: Row, turn: int) -> str:
    """The same for the same row and turn, readable, and no other's."""
    digest = hashlib.sha256(msgspec.json.encode([row.series, row.setup, row.workload])).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9.]+", "-", f"{row.series} {describe(row)}".lower())
    return f"{words[:MOST_LETTERS]}-{digest}-{turn}"


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


def _reasons(several: BaseExceptionGroup[BaseException]) -> str:
    """Each once."""
    return "; ".join(dict.fromkeys(told(exc) for exc in _leaves(several)))


def _leaves(several: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in several.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
