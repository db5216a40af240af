"""Fanrate beside others: which rows are held against which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from bench.lab import noise
from bench.lab.axes import BROKER_NAMES, Axis, label, system_name, varying
from bench.lab.document import FANRATE
from bench.lab.figures import RPS
from bench.lab.noise import Noise
from bench.lab.report.text import listed, times
from bench.lab.rows import Key, Row

_SETTING: Final = re.compile(r"-\d+x\d+$")
"""One program with several settings, of which its better one counts."""


def against_fanrate(rows: Iterable[Row]) -> dict[Key, float]:
    """How many times as many rates/s Fanrate confirms as each other system, on the same broker under the same load."""
    own = counterparts(rows)
    return {row.key: _rps(own[row.key]) / _rps(row) for row in rows if row.key in own and _rps(row) > 0}


def counterparts(rows: Iterable[Row]) -> dict[Key, Row]:
    """Of each other system's row the one of Fanrate that is set up the same; where Fanrate has a single row on the same
    broker under the same load it is that one, for peers are set up in their own ways."""
    measured = [row for row in rows if row.spread(RPS)]
    own: dict[object, list[Row]] = {}
    for row in measured:
        if row.setup.system == FANRATE:
            own.setdefault(_match(row), []).append(row)
    found = {}
    for row in measured:
        alike = own.get(_match(row), []) if row.setup.system != FANRATE else []
        same = [each for each in alike if _way(each) == _way(row)]
        if len(same or alike) == 1:
            (found[row.key],) = same or alike
    return found


def better_settings(rows: Sequence[Row]) -> list[Row]:
    """Of a system that was run with several settings the better row alone; rows that were not measured are left out."""
    best: dict[object, Row] = {}
    for row in rows:
        if row.spread(RPS):
            key = (family(row.setup.system), _match(row), _way(row))
            if key not in best or _rps(row) > _rps(best[key]):
                best[key] = row
    return [row for row in rows if row in best.values()]


def family(system: str) -> str:
    """The name of a system without its setting."""
    return _SETTING.sub("", system)


def _match(row: Row) -> tuple[object, ...]:
    """What must be the same: what they stand on and what they are sent."""
    setup = row.setup
    return row.series, setup.broker, setup.durability, setup.replicas, row.workload, row.machine, row.build


def _way(row: Row) -> tuple[object, ...]:
    """What else a set-up is."""
    setup = row.setup
    return setup.dispatch, setup.balancer, setup.processes, setup.settings


def _rps(row: Row) -> float:
    spread = row.spread(RPS)
    assert spread is not None
    return spread.median


def sentences(rows: Sequence[Row]) -> list[str]:
    """How many times as many rates/s Fanrate confirms as each of the others; of a program with several settings the
    better one counts."""
    ratios, own = against_fanrate(rows), counterparts(rows)
    if not ratios:
        return []
    shared = noise.pool([list(spread.values) for row in rows if (spread := row.spread(RPS))])
    told: dict[str, list[str]] = {}
    shown = [row for row in better_settings(rows) if row.key in ratios]
    for row in shown:
        name = system_name(row.setup.system)
        alike = [
            each for each in shown if (each.setup.system, each.setup.broker) == (row.setup.system, row.setup.broker)
        ]
        told.setdefault(name, []).append(_against(row, own[row.key], ratios[row.key], shared, varying(alike)))
    head = "Against {}, Fanrate confirms so many times the rates/s: {}."
    said = [head.format(name, listed(parts)) for name, parts in told.items()]
    if shared is None:
        said.append("That is from one turn each: nothing is known about noise.")
    return [*said, "Its CPU time and memory hold the counting too, which the others leave undone."]


def _against(row: Row, own: Row, ratio: float, shared: Noise | None, axes: Sequence[Axis]) -> str:
    theirs, ours = row.spread(RPS), own.spread(RPS)
    assert theirs is not None
    assert ours is not None
    call = noise.difference(theirs.values, ours.values, shared).call
    told = "as many, within noise" if call == "equal" else times(ratio)
    which = f" ({label(row, axes)})" if axes else ""
    return f"{BROKER_NAMES[row.setup.broker]}{which} {told}"
