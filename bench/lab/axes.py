"""Axes: in what the rows of a table or plot differ, found from the rows themselves, and how to tell it in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.lab.document import FANRATE
from bench.lab.rows import Row
from bench.peers import PEERS

BROKER_NAMES: Final = {
    "nats": "NATS JetStream",
    "nats+core": "NATS core",
    "kafka": "Kafka",
    "rabbit": "RabbitMQ",
    "redis": "Redis Streams",
}
_FOLLOWING: Final = ("seconds", "offered", "processes", "balancer")
"""What a series may have to set together with the number that it varies."""


@dataclass(frozen=True, slots=True)
class Axis:
    """`title` heads a column; `tell` puts a value where no column's head stands beside it. A number is plotted as
    one."""

    name: str
    title: str
    of: Callable[[Row], object]
    tell: Callable[[object], str] = str
    number: bool = False


def count(singular: str, plural: str | None = None) -> Callable[[object], str]:
    """Tells a number of things."""
    return lambda value: f"{grouped(value)} {singular if value == 1 else plural or singular + 's'}"


def grouped(value: object) -> str:
    """A whole number in groups of three, as in `1 234 567`; what is no number as it is."""
    return f"{value:,}".replace(",", "\N{NO-BREAK SPACE}") if isinstance(value, int) else str(value)


def system_name(system: str) -> str:
    """For people; one that is no longer known has only its name."""
    if system == FANRATE:
        return "Fanrate"
    return PEERS[system].title if system in PEERS else system


def _settings(value: object) -> str:
    return str(value) or "default settings"


AXES: Final = (
    Axis("series", "series", lambda row: row.series),
    Axis("broker", "broker", lambda row: BROKER_NAMES[row.setup.broker]),
    Axis("system", "system", lambda row: system_name(row.setup.system)),
    Axis("durability", "durability", lambda row: row.setup.durability),
    Axis("dispatch", "dispatch", lambda row: row.setup.dispatch),
    Axis("balancer", "balancer", lambda row: row.setup.balancer, lambda value: f"balancer {value}"),
    Axis("replicas", "replicas", lambda row: row.setup.replicas, count("replica"), number=True),
    Axis("processes", "processes", lambda row: row.setup.processes, count("process", "processes"), number=True),
    Axis("settings", "settings", lambda row: row.setup.settings, _settings),
    Axis("connections", "connections", lambda row: row.workload.connections, count("connection"), number=True),
    Axis(
        "rates_per_request",
        "rates per request",
        lambda row: row.workload.rates_per_request,
        count("rate per request", "rates per request"),
        number=True,
    ),
    Axis("subjects", "subjects", lambda row: row.workload.subjects, count("subject"), number=True),
    Axis("seconds", "seconds", lambda row: row.workload.seconds, lambda value: f"{value:g} s", number=True),
    Axis("offered", "offered", lambda row: row.workload.offered, lambda value: f"offered {shares(value)}"),
    Axis("arrivals", "arrivals", lambda row: row.workload.arrivals, lambda value: f"arrivals {value}"),
    Axis("consumers", "consumers", lambda row: row.workload.consumers, lambda value: f"consumers {value}"),
    Axis("machine", "machine", lambda row: row.machine),
    Axis("build", "build", lambda row: row.build, lambda value: f"build {value}"),
)


def shares(offered: object) -> str:
    """Offered loads as `50 %, 80 %`."""
    assert isinstance(offered, tuple)
    return ", ".join(f"{share:.0%}".replace("%", " %") for share in offered) or "none"


def varying(rows: Sequence[Row]) -> list[Axis]:
    """Those in which the rows differ, without those that only go along with a number, as a balancer that comes with the
    second replica."""
    found = [axis for axis in AXES if _kinds(rows, [axis]) > 1]
    numbers = [axis for axis in found if axis.number and axis.name not in _FOLLOWING]
    return [axis for axis in found if axis.name not in _FOLLOWING or not _follows(axis, numbers, rows)]


def _follows(axis: Axis, numbers: Sequence[Axis], rows: Sequence[Row]) -> bool:
    return any(_kinds(rows, [number, axis]) == _kinds(rows, [number]) for number in numbers)


def _kinds(rows: Sequence[Row], axes: Sequence[Axis]) -> int:
    return len({tuple(axis.of(row) for axis in axes) for row in rows})


def same(rows: Sequence[Row]) -> list[Axis]:
    """Those in which they do not."""
    return [axis for axis in AXES if len({axis.of(row) for row in rows}) == 1]


def label(row: Row, axes: Sequence[Axis]) -> str:
    """What a row is among others, in one line; its broker where nothing varies."""
    return ", ".join(axis.tell(axis.of(row)) for axis in axes) or BROKER_NAMES[row.setup.broker]


def drop(axes: Sequence[Axis], *names: str) -> list[Axis]:
    """Without some."""
    return [axis for axis in axes if axis.name not in names]
