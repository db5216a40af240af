"""A run's document: what was measured, with what, on what, and what came out. One JSON file per run.

These types are the schema: docs/run.schema.json is made from them, and a file that does not fit is refused by name.
Rates are counted ratings; where a request holds one, rates/s is requests/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bench.load import MOST_FAILED
from core.errors import FanrateError
from core.settings import Dispatch, Durability
from stack.configuration import Balancer
from stack.topology import Broker

VERSION = 1
"""Of the schema; a field that is added with a default is no new version."""

Outcome = Literal["measured", "void", "failed", "skipped"]
"""`void`: many requests at full load were not confirmed; `failed`: a part died, or the ledger did not close;
`skipped`: something that it needs is not installed."""
Offered = Annotated[float, msgspec.Meta(gt=0, le=2)]


FANRATE = "fanrate"
"""The system that is no peer."""


class Setup(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What takes the load."""

    broker: Broker
    system: str = FANRATE
    """`fanrate`, or the name of another product or program in bench.peers."""
    durability: Durability = "confirmed"
    replicas: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    processes: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """Counting processes; of another system than Fanrate there are none."""
    dispatch: Dispatch = "group"
    balancer: Literal["none"] | Balancer = "none"
    settings: str = ""
    """Further settings of Fanrate's services, `NAME=VALUE` with spaces between."""


class Workload(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is sent."""

    connections: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    rates_per_request: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    """1 is `POST /rate`, more is `POST /rates`."""
    subjects: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 3000
    seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 10.0
    """The length of each load."""
    offered: tuple[Offered, ...] = (0.5,)
    """Loads on a schedule (open loop), as shares of the peak of the same run; none for the peak alone."""
    arrivals: Literal["even", "poisson"] = "even"
    consumers: Literal["running", "frozen"] = "running"
    """`frozen`: they stand still under load, as if on another machine, and catch up afterwards."""


class Busy(msgspec.Struct, frozen=True):
    """What else the machine did during one load. Shares are of all its cores' time."""

    others: float
    """Used by programs that were not part of the run."""
    steal: float
    """Given to other machines by the host."""
    load_average: float
    warns: bool
    """Whether that is too much for figures to be trusted."""


class Machine(msgspec.Struct, frozen=True):
    """Where it ran."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    load_average: float
    versions: dict[str, str]
    """Of Python, libraries and programs."""


class WarmUp(msgspec.Struct, frozen=True):
    """Loads before what counts, one after another, until two agree."""

    rates_per_s: list[float]
    agreed: bool


class Peak(msgspec.Struct, frozen=True):
    """Full load in a closed loop: each connection sends when it was answered. No latency is taken from it."""

    seconds: float
    rates: int
    """Confirmed."""
    rates_per_s: float
    failed: int
    """Requests without a confirm, among them sockets with an error."""
    cpu_us_per_rate: dict[str, float]
    """Of each role, until all its rates were counted: api, balancer, broker, process, redis, load."""
    rates_per_message: float | None
    """How many rates a broker message held, on average."""
    busy: Busy


class Tail(msgspec.Struct, frozen=True):
    """One load on a schedule. Latencies count from the intended sending."""

    offered: float
    """As a share of the peak."""
    scheduled_per_s: float
    """Requests."""
    confirmed: int
    """Requests."""
    confirmed_per_s: float
    latency_ms: dict[str, float]
    """p50, p90, p99, p99.9 and max, from the intended sending to the confirm."""
    histogram: str
    """The same whole, in microseconds: an encoded HDR histogram."""
    fell_behind: bool
    """Whether the generator itself was late: its own latencies say nothing."""
    unsent: int
    """Requests that found no free connection until a second after the end: more was offered than the service takes."""
    failed: int
    """Requests that left and were not confirmed."""
    generator_late_ms_p99: float
    cpu_us_per_rate: dict[str, float]
    freshness_ms: dict[str, float]
    """p50, p90, p99 and p99.9, from sending a POST until its rate is visible in Redis; empty if not looked for."""
    probes: int
    busy: Busy

    @property
    def void(self) -> str:
        """Why its latencies say nothing; empty if they count. What was never answered has no latency: a few such
        requests would make the slowest ones look fast."""
        if self.fell_behind:
            return "the generator itself was late"
        if self.unsent:
            return f"more was offered than it takes: {self.unsent:,} requests found no free connection"
        if self.failed > MOST_FAILED * (self.failed + self.confirmed):
            return f"{self.failed:,} requests were not confirmed"
        return ""

    @property
    def overloaded(self) -> bool:
        """Whether it is void because of the service, which did not take, or not confirm, what was offered."""
        return bool(self.void) and not self.fell_behind


class Holding(msgspec.Struct, frozen=True):
    """What the broker says of itself after the peak, before consumers that were frozen go on."""

    messages: int
    stored_bytes: int
    depth: int | None
    """Not yet acknowledged by the counting group."""


class Books(msgspec.Struct, frozen=True):
    """The ledger over all that was sent in this run."""

    sent: int
    """At most: wrk's last requests may have left or not."""
    confirmed: int
    counted: int
    """By the service; of another system, stored by the broker."""
    loss: int
    dup: int

    @property
    def closed(self) -> bool:
        return self.loss == 0 and self.dup == 0


class Run(msgspec.Struct, frozen=True):
    """One run of one row: `series`, `setup` and `workload` together are the row; its turns are repetitions."""

    version: int
    experiment: str
    series: str
    sitting: str
    """All runs of one call."""
    turn: int
    """Of this row, from 1."""
    order: int
    """Its place among the runs of its sitting, from 1."""
    at: datetime
    command: str
    commands: list[str]
    fanrate: str
    quick: bool
    """Whether it was warmed up only briefly, for orientation."""
    commit: str
    """Of the source, with `+` where that was changed; empty where it is not in a repository."""
    machine: Machine
    setup: Setup
    service_settings: dict[str, str]
    """Settings that the replicas were given beyond addresses and defaults: those of the setup, and what the set-up
    itself entails."""
    workload: Workload
    outcome: Outcome
    reason: str = ""
    """Of another outcome than `measured`."""
    calibration_us: float = 0.0
    """CPU time of a fixed piece of work beside the loads: how fast this machine was just then."""
    warm_up: WarmUp | None = None
    peak: Peak | None = None
    tails: list[Tail] = []
    memory_peak_bytes: Mapping[str, int] = {}
    """Of each role, the sum over its processes."""
    holding: Holding | None = None
    ledger: Books | None = None

    @property
    def row(self) -> tuple[str, Setup, Workload]:
        return self.series, self.setup, self.workload

    @property
    def busy(self) -> list[Busy]:
        """Of each of its loads."""
        peak = [self.peak.busy] if self.peak else []
        return [*peak, *(tail.busy for tail in self.tails)]

    @property
    def disturbed(self) -> bool:
        """Whether the machine did too much else during one of its loads."""
        return any(each.warns for each in self.busy)


class BadDocument(FanrateError):
    """A file that is not a run's document, or of a version that this program does not know."""


class _Versioned(msgspec.Struct):
    version: int


def read(path: Path) -> Run:
    """Raises BadDocument, with the field that does not fit, and OSError."""
    content = path.read_bytes()
    try:
        version = msgspec.json.decode(content, type=_Versioned).version
        if version != VERSION:
            raise BadDocument(f"{path} is of version {version} of the schema, this program knows {VERSION}")
        return msgspec.json.decode(content, type=Run)
    except msgspec.MsgspecError as exc:
        raise BadDocument(f"{path} is not the document of a run: {exc}") from exc


def write(run: Run, path: Path) -> None:
    """Whole or not at all; raises OSError, as with a full disk."""
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def schema() -> bytes:
    """The JSON Schema of a run's document."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Run))) + b"\n"
