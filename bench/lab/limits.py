"""What Fanrate is held to, as far as experiments measure it: each limit beside what their rows came to.

The limits were set before anything was measured. What `python -m bench brokers` measures, it holds to its own: the two
routes side by side among it, for on a machine whose speed changes they want turns next to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from bench.bars import Bar
from bench.lab import speed
from bench.lab.axes import BROKER_NAMES
from bench.lab.document import FANRATE, Run
from bench.lab.figures import COST, FRESHNESS
from bench.lab.report.peers import against_fanrate, better_settings, counterparts, family
from bench.lab.report.replicas import grown
from bench.lab.rows import Row, rows

_FRESH_MS: Final = 50.0
_REPLICAS: Final = 1.3
_FASTSTREAM: Final = 4.0
_BALANCED: Final = 5.0
_GO: Final = 2.0
_BRIDGE: Final = {"nats": 1.5, "kafka": 1.4}
_INTAKE: Final = ("api", "broker")


def bars(runs: Sequence[Run]) -> list[Bar]:
    """Of what was measured; processor time as at the machine's usual speed."""
    found = rows(speed.at_usual_speed(runs))
    return [bar for make in _MAKERS for bar in make(found)]


def _faststream(found: Sequence[Row]) -> Iterator[Bar]:
    for row, ratio in _against(found):
        if row.setup.system == "fastapi-faststream":
            yield Bar(f"rates/s, of FastAPI + FastStream; {_where(row)}", "", _FASTSTREAM, False, ratio)


def _balanced(found: Sequence[Row]) -> Iterator[Bar]:
    for row, ratio in _against(found):
        if row.setup.system == "aiohttp-publish" and row.setup.replicas > 1:
            yield Bar(f"rates/s of replicas, of plain ones; {_where(row)}", "", _BALANCED, False, ratio)


def _go(found: Sequence[Row]) -> Iterator[Bar]:
    for row, ratio in _against(found):
        if (row.setup.system, row.setup.broker, row.workload.connections) == ("go", "nats", 64):
            yield Bar(f"rates/s, of Go; {_where(row)}", "", _GO, False, ratio)


def _bridge(found: Sequence[Row]) -> Iterator[Bar]:
    own = counterparts(found)
    for row, ratio in _against(better_settings(found)):
        limit = _BRIDGE.get(row.setup.broker)
        if limit is not None and family(row.setup.system) == "mq-bridge":
            yield Bar(f"rates/s, of mq-bridge; {_where(row)}", "", limit, False, ratio)
            spent = _spent(own[row.key], _INTAKE), _spent(row, _INTAKE)
            yield Bar(f"CPU of API and broker, of mq-bridge's; {_where(row)}", "", 1.0, True, spent[0] / spent[1])


def _replicas(found: Sequence[Row]) -> Iterator[Bar]:
    for few, many in grown(found):
        costs = few.spread(COST), many.spread(COST)
        if few.setup.balancer == many.setup.balancer and costs[0] and costs[1]:
            name = f"CPU per rate, {many.setup.replicas} replicas / {few.setup.replicas}; {_where(many)}"
            yield Bar(name, "", _REPLICAS, True, costs[1].median / costs[0].median)


def _fresh(found: Sequence[Row]) -> Iterator[Bar]:
    for row in _own(found):
        setup, workload = row.setup, row.workload
        counted = workload.offered and workload.consumers == "running"
        if (setup.dispatch, setup.settings, setup.replicas) == ("group", "", 1) and counted:
            seen = row.spread(FRESHNESS)
            yield Bar(f"POST to visible, p99; {_where(row)}", "ms", _FRESH_MS, True, seen.median if seen else None)


_MAKERS: Final[tuple[Callable[[Sequence[Row]], Iterable[Bar]], ...]] = (
    _faststream,
    _balanced,
    _go,
    _bridge,
    _replicas,
    _fresh,
)


def _against(found: Sequence[Row]) -> Iterator[tuple[Row, float]]:
    """The rows of other systems, and how many times their rates/s Fanrate confirms."""
    ratios = against_fanrate(found)
    return ((row, ratios[row.key]) for row in found if row.key in ratios)


def _own(found: Sequence[Row]) -> Iterator[Row]:
    return (row for row in found if row.setup.system == FANRATE and row.measured)


def _spent(row: Row, roles: Sequence[str]) -> float:
    """CPU microseconds per rate."""
    spreads = row.cpu_us()
    return sum(spreads[role].median for role in roles if role in spreads)


def _where(row: Row) -> str:
    balancer = "" if row.setup.balancer == "none" else f", {row.setup.balancer}"
    return f"{BROKER_NAMES[row.setup.broker]}{balancer}, {row.workload.connections} ({row.series})"
