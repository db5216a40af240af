"""Experiments as data: series of rows, each a setup under a workload. A file of bench/experiments holds one.

    title = "Brokers, replicas and ways to dispatch"
    repeat = 3

    [[series]]
    name = "brokers"
    setup.broker = ["nats", "kafka"]
    setup.replicas = [1, 3]
    workload.connections = 64

Every list is an axis, and a series has all combinations of its axes; the one field that is a list itself,
`workload.offered`, is none. The fields are those of `bench.lab.document.Setup` and `Workload`.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from bench.lab.document import FANRATE, Setup, Workload
from bench.peers import PEERS
from core.errors import FanrateError
from core.settings import ApiSettings, ProcessSettings

SUFFIX: Final = ".toml"
QUICK_SECONDS: Final = 4.0
SETTINGS: Final = frozenset(name.upper() for section in (ApiSettings, ProcessSettings) for name in section.model_fields)
"""The names of what the services can be told."""
_SCALAR: Final = {"offered"}


class BadExperiment(FanrateError):
    """An experiment that cannot be read, or says what cannot be."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setup under one workload, as often as the experiment repeats it."""

    series: str
    setup: Setup
    workload: Workload


@dataclass(frozen=True, slots=True)
class Experiment:
    name: str
    title: str
    repeat: int
    rows: Sequence[Row]

    def quick(self) -> Experiment:
        """The same for orientation: each row once, with short loads."""
        rows = [replace(row, workload=_shortened(row.workload)) for row in self.rows]
        return replace(self, repeat=1, rows=rows)


class _Series(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    setup: dict[str, Any]
    workload: dict[str, Any] = {}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    series: list[_Series]
    repeat: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3


def named() -> list[str]:
    """The experiments that come with the program."""
    return sorted(Path(file.name).stem for file in _shelf().iterdir() if file.name.endswith(SUFFIX))


def load(name: str) -> Experiment:
    """The experiment of that name, or in that file (`*.toml`); raises BadExperiment."""
    path: Traversable = Path(name) if name.endswith(SUFFIX) else _shelf().joinpath(name + SUFFIX)
    try:
        content = path.read_bytes()
    except OSError as exc:
        known = ", ".join(named())
        raise BadExperiment(f"no experiment {name!r}: {exc.strerror}; there are {known}, and files *{SUFFIX}") from exc
    try:
        file = msgspec.convert(tomllib.loads(content.decode()), _File)
        found = [row for series in file.series for row in rows_of(series.name, series.setup, series.workload)]
        rows = list(dict.fromkeys(found))
        if not rows:
            raise BadExperiment("it has no rows")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, BadExperiment) as exc:
        raise BadExperiment(f"{name}: {exc}") from exc
    return Experiment(Path(name).stem, file.title, file.repeat, rows)


def rows_of(series: str, setup: Mapping[str, object], workload: Mapping[str, object]) -> list[Row]:
    """All combinations of the axes; raises BadExperiment."""
    try:
        setups = [msgspec.convert(one, Setup) for one in _combinations(setup)]
        workloads = [msgspec.convert(one, Workload) for one in _combinations(workload)]
    except msgspec.ValidationError as exc:
        raise BadExperiment(f"series {series}: {exc}") from exc
    for pair in (pair for one in setups for pair in one.settings.split() if not _is_setting(pair)):
        raise BadExperiment(f"series {series}: no setting {pair!r}; they are NAME=VALUE, with spaces between")
    for system in (one.system for one in setups if one.system not in {FANRATE, *PEERS}):
        raise BadExperiment(f"series {series}: no system {system!r}; there are {', '.join([FANRATE, *PEERS])}")
    return list(dict.fromkeys(Row(series, one, other) for one in setups for other in workloads))


def _is_setting(pair: str) -> bool:
    name, equals, _ = pair.partition("=")
    return bool(equals) and name in SETTINGS


def _combinations(axes: Mapping[str, object]) -> Iterator[dict[str, object]]:
    values = [value if isinstance(value, list) and name not in _SCALAR else [value] for name, value in axes.items()]
    for chosen in itertools.product(*values):
        yield dict(zip(axes, chosen, strict=True))


def _shortened(workload: Workload) -> Workload:
    return msgspec.structs.replace(workload, seconds=min(workload.seconds, QUICK_SECONDS))


def _shelf() -> Traversable:
    return files("bench").joinpath("experiments")
