"""The table: a block for each kind of figure, a row for each contestant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from bench.bars import figure
from bench.brokers.measures import Row

ROLES: Final = ("api", "process", "broker", "redis", "balancer", "load")
_HEAD: Final = ("broker", "durability", "server, client", "bar", "measured", "turns", "", *ROLES)


def lines(rows: Sequence[Row], versions: Mapping[str, str]) -> list[str]:
    """Rows of one kind stand together under its text. The last columns are CPU microseconds per rate by role."""
    shown = [cells(row, versions) for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEAD, *shown, strict=True)]
    head = _aligned(_HEAD, widths)
    drawn = [f"{'CPU-us per rate by role':>{len(head)}}", head]
    for text, block in groupby(zip(rows, shown, strict=True), key=lambda pair: _title(pair[0])):
        drawn += ["", text, *[_aligned(each, widths) for _, each in block]]
    return drawn


def cells(row: Row, versions: Mapping[str, str]) -> tuple[str, ...]:
    """What one row says; `turns` are the values of each, in their order, with those that are void."""
    bar, contestant = row.bar, row.contestant
    turns = " ".join("void" if taken.value is None else figure(taken.value) for taken in row.taken)
    cpu_us = [f"{row.cpu_us[role]:.2f}" if row.cpu_us.get(role) else "-" for role in ROLES]
    about = (contestant.name, contestant.durability, contestant.versions(versions))
    return (*about, bar.bound, bar.measured, turns, bar.outcome, *cpu_us)


def _title(row: Row) -> str:
    return f"{row.asked.text}, {row.asked.unit}".removesuffix(", ")


def _aligned(cells_: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    names = 3
    left = [cell.ljust(width) for cell, width in zip(cells_[:names], widths[:names], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells_[names:], widths[names:], strict=True)]
    return "  ".join([*left, *right]).rstrip()
