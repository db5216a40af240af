"""Fanrate beside others: which rows are held against which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from bench.lab import noise
from bench.lab.axes import BROKER_NAMES, system_name
from bench.lab.figures import RPS
from bench.lab.noise import Noise
from bench.lab.report.text import listed, times
from bench.lab.rows import FANRATE, Key, Row

_SETTING: Final = re.compile(r"-\d+x\d+$")
"""One program with several settings, of which its better one counts."""


def against_fanrate(rows: Iterable[Row]) -> dict[Key, float]:
    """How many times as many rates/s Fanrate confirms as each other system, on the same broker under the same load."""
    measured = [row for row in rows if row.spread(RPS)]
    own = {_match(row): _rps(row) for row in measured if row.setup.system == FANRATE}
    return {
        row.key: own[_match(row)] / _rps(row)
        for row in measured
        if row.setup.system != FANRATE and _match(row) in own and _rps(row) > 0
    }


def better_settings(rows: Sequence[Row]) -> list[Row]:
    """Of a system that was run with several settings the better row alone; rows that were not measured are left out."""
    best: dict[object, Row] = {}
    for row in rows:
        if row.spread(RPS):
            key = (family(row.setup.system), _match(row))
            if key not in best or _rps(row) > _rps(best[key]):
                best[key] = row
    return [row for row in rows if row in best.values()]


def family(system: str) -> str:
    """The name of a system without its setting."""
    return _SETTING.sub("", system)


def _match(row: Row) -> tuple[object, ...]:
    """Peers are set up in their own ways; what must be the same is what they stand on and what they are sent."""
    setup = row.setup
    return row.series, setup.broker, setup.durability, setup.replicas, row.workload, row.machine, row.build


def _rps(row: Row) -> float:
    spread = row.spread(RPS)
    assert spread is not None
    return spread.median


def sentences(rows: Sequence[Row]) -> list[str]:
    """How many times as many rates/s Fanrate confirms as each of the others; of a program with several settings the
    better one counts."""
    ratios = against_fanrate(rows)
    if not ratios:
        return []
    shared = noise.pool([list(spread.values) for row in rows if (spread := row.spread(RPS))])
    own = {_match(row): row for row in rows if row.setup.system == FANRATE and row.spread(RPS)}
    told: dict[str, list[str]] = {}
    for row in better_settings(rows):
        if row.key in ratios:
            name = system_name(row.setup.system)
            told.setdefault(name, []).append(_against(row, own[_match(row)], ratios[row.key], shared))
    head = "Against {}, Fanrate confirms so many times the rates/s: {}."
    said = [head.format(name, listed(parts)) for name, parts in told.items()]
    return [*said, "Its CPU time and memory hold the counting too, which the others leave undone."]


def _against(row: Row, own: Row, ratio: float, shared: Noise | None) -> str:
    theirs, ours = row.spread(RPS), own.spread(RPS)
    assert theirs is not None
    assert ours is not None
    call = noise.difference(theirs.values, ours.values, shared).call
    told = "as many, within noise" if call == "equal" else times(ratio)
    return f"{BROKER_NAMES[row.setup.broker]} {told}"
