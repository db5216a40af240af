"""Rows: all turns of one setup under one workload, by one build on one machine, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, get_args

from bench.lab import document
from bench.lab.document import FANRATE, Outcome, Run, Setup, Tail, Workload
from bench.lab.figures import Figure, tail_at, told_share
from bench.runs import SCENE
from core.errors import FanrateError
from core.settings import Dispatch
from stack.topology import Broker

_BROKERS: Final = get_args(Broker)
_DISPATCHES: Final = get_args(Dispatch)
_ROLES: Final = ("api", "balancer", "broker", "process", "redis", "load")
"""In the order of a rate's way; others follow."""


Asked = tuple[str, Setup, Workload]
Key = tuple[str, Setup, Workload, str, str]


class NoDocuments(FanrateError):
    """Nothing to read."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the turns of a row; at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Row:
    """`runs` are its turns in the order in which they were made."""

    series: str
    setup: Setup
    workload: Workload
    machine: str
    build: str
    runs: tuple[Run, ...]

    @property
    def key(self) -> Key:
        return self.series, self.setup, self.workload, self.machine, self.build

    @property
    def asked(self) -> Asked:
        """What it is a row of, whatever measured it."""
        return self.series, self.setup, self.workload

    @property
    def measured(self) -> list[Run]:
        return [run for run in self.runs if run.outcome == "measured"]

    @property
    def reasons(self) -> dict[tuple[Outcome, str], int]:
        """Why turns were not measured, and how many of each."""
        counted: dict[tuple[Outcome, str], int] = {}
        for run in self.runs:
            if run.outcome != "measured":
                told = (run.outcome, run.reason or "no reason was told")
                counted[told] = counted.get(told, 0) + 1
        return counted

    def spread(self, figure: Figure) -> Spread | None:
        """Over the measured turns that have it; None too where it is of a load that the service did not take."""
        if figure.scheduled and told_share(self.workload) in self.overloaded():
            return None
        return _spread(figure.of(run) for run in self.measured)

    def cpu_us(self) -> dict[str, Spread]:
        """CPU microseconds per rate of each role at the peak, the generator's too."""
        return _by_role([run.peak.cpu_us_per_rate for run in self.measured if run.peak])

    def memory_bytes(self) -> dict[str, Spread]:
        """Peak of each role."""
        return _by_role([run.memory_peak_bytes for run in self.measured])

    def offered(self) -> list[float]:
        """The loads on a schedule of which a latency can be told, ascending: at least one turn counts, and the service
        took them in more than half of its turns."""
        return sorted({tail.offered for tail in self._tails() if not tail.void}.difference(self.overloaded()))

    def overloaded(self) -> list[float]:
        """The loads on a schedule that the service did not take in half of its turns or more, ascending. Latencies of
        the other turns would be those of its better moments."""
        turns: dict[float, list[bool]] = {}
        for tail in self._tails():
            turns.setdefault(tail.offered, []).append(tail.overloaded)
        return sorted(share for share, told in turns.items() if 2 * sum(told) >= len(told))

    def void_loads(self) -> dict[float, list[Tail]]:
        """The loads on a schedule that say nothing in some turn, ascending, with what those turns had."""
        found: dict[float, list[Tail]] = {}
        for tail in sorted((tail for tail in self._tails() if tail.void), key=_offered):
            found.setdefault(tail.offered, []).append(tail)
        return found

    def counting(self, offered: float) -> int:
        """The turns from which a latency of that load is taken."""
        return sum(tail.offered == offered and not tail.void for tail in self._tails())

    def scheduled_per_s(self, offered: float) -> float:
        """Requests that one offered load was, the median over all turns, void ones too; 0 without any."""
        return median([tail.scheduled_per_s for tail in self._tails() if tail.offered == offered] or [0.0])

    def latency_ms(self, offered: float, percentile: str) -> Spread | None:
        """Over the measured turns, at one offered load."""
        tails = [tail_at(run, offered) for run in self.measured]
        return _spread(tail.latency_ms.get(percentile) for tail in tails if tail)

    def freshness_ms(self, offered: float, percentile: str) -> Spread | None:
        """Over the measured turns, at one offered load."""
        tails = [tail_at(run, offered) for run in self.measured]
        return _spread(tail.freshness_ms.get(percentile) for tail in tails if tail)

    def _tails(self) -> list[Tail]:
        return [tail for run in self.measured for tail in run.tails]


def rows(runs: Iterable[Run]) -> list[Row]:
    """Runs put together by row, ordered by what they are, not by when they ran."""
    turns: dict[Key, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.at, run.sitting, run.order)):
        turns.setdefault((*run.row, machine_of(run), build_of(run)), []).append(run)
    return sorted((Row(*key, tuple(found)) for key, found in turns.items()), key=_place)


def machine_of(run: Run) -> str:
    """By what machines are told apart."""
    cores = run.machine.cores
    return f"{run.machine.processor}, {cores} {'core' if cores == 1 else 'cores'}"


def build_of(run: Run) -> str:
    """By what builds are told apart."""
    return f"{run.fanrate} {run.commit}".strip()


def read(paths: Sequence[Path]) -> list[Run]:
    """Every document of some files and folders, each file once. Raises NoDocuments, BadDocument and OSError."""
    files: dict[Path, None] = {}
    for path in paths:
        found = _documents(path) if path.is_dir() else [path]
        if not found:
            raise NoDocuments(f"{path} holds no documents of runs (*.json)")
        files.update(dict.fromkeys(each.resolve() for each in found))
    return [document.read(path) for path in files]


def _documents(folder: Path) -> list[Path]:
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*.json")))
    return [folder / path for path in found if not any(part.startswith(SCENE) for part in path.parts)]


def roles_in_order(names: Iterable[str]) -> list[str]:
    """Each once, in the order of a rate's way."""
    found = set(names)
    return [*(role for role in _ROLES if role in found), *sorted(found.difference(_ROLES))]


def _offered(tail: Tail) -> float:
    return tail.offered


def _spread(values: Iterable[float | None]) -> Spread | None:
    found = tuple(value for value in values if value is not None)
    return Spread(found) if found else None


def _by_role(turns: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """A turn in which a role is not told counts for nothing."""
    names = {role for turn in turns for role in turn}
    return {role: Spread(tuple(turn[role] for turn in turns if role in turn)) for role in roles_in_order(names)}


def _place(row: Row) -> tuple[object, ...]:
    setup, work = row.setup, row.workload
    return (
        row.series,
        _BROKERS.index(setup.broker),
        setup.system != FANRATE,
        setup.system,
        setup.durability,
        _DISPATCHES.index(setup.dispatch),
        setup.replicas,
        setup.processes,
        setup.balancer != "none",
        setup.balancer,
        setup.settings,
        work.rates_per_request,
        work.connections,
        work.subjects,
        work.seconds,
        work.offered,
        work.arrivals,
        work.consumers,
        row.machine,
        row.build,
    )
