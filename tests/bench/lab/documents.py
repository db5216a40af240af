"""Documents of runs that never were, with plausible figures: to draw, to compare, to read.

They go through `document.write` and `document.read` as real ones do. All is drawn from a seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from bench.lab import document
from bench.lab.document import Books, Busy, Holding, Machine, Peak, Run, Setup, Tail, WarmUp, Workload
from stack.topology import Broker

QUIET = Busy(others=0.01, steal=0.0, load_average=0.4, warns=False)
LOUD = Busy(others=0.31, steal=0.04, load_average=3.9, warns=True)
BROKERS: tuple[Broker, ...] = ("nats", "kafka", "rabbit", "redis")
MACHINE = Machine(
    processor="AMD EPYC 7B13",
    cores=2,
    memory_bytes=8_348_000_000,
    system="Linux 6.1.0",
    load_average=0.3,
    versions={
        "python": "3.11.2",
        "aiohttp": "3.14.1",
        "nats-py": "2.16.0",
        "aiokafka": "0.14.0",
        "nats-server": "2.15.2",
        "kafka": "4.3.1",
        "rabbitmq-server": "3.10.8",
        "redis-server": "7.0.15",
        "wrk": "4.1.0",
    },
)
_START = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
_CPU_US = {
    "nats": {"api": 27.0, "broker": 6.0, "process": 6.0, "redis": 11.0, "load": 7.0},
    "kafka": {"api": 29.0, "broker": 13.0, "process": 7.0, "redis": 12.0, "load": 7.0},
    "rabbit": {"api": 27.0, "broker": 16.0, "process": 7.0, "redis": 11.0, "load": 7.0},
    "redis": {"api": 24.0, "broker": 3.0, "process": 6.0, "redis": 10.0, "load": 7.0},
}
_CPU_US["nats+core"] = {"api": 20.0, "broker": 3.0, "process": 6.0, "redis": 11.0, "load": 7.0}
_PEER_CPU_US = {"fastapi-faststream": 230.0, "aiohttp-publish": 92.0, "go": 40.0, "mq-bridge-128x1": 21.0}
_MEMORY = {"api": 68e6, "broker": 60e6, "process": 75e6, "redis": 20e6, "load": 40e6}


def plain(setup: Setup, work: Workload) -> dict[str, float]:
    """CPU microseconds per rate and role, without noise."""
    if setup.system != "fanrate":
        return {"api": _PEER_CPU_US[setup.system], "broker": 30.0, "load": 9.0}
    spent = dict(_CPU_US[setup.broker])
    spent["api"] *= (1 + 0.15 * (setup.replicas - 1)) / (1 + math.log10(work.rates_per_request))
    spent["process"] *= 1 + 0.1 * math.log10(work.subjects / 3000 + 1)
    if setup.balancer != "none":
        spent["balancer"] = 9.0
    if setup.dispatch == "topics":
        spent["broker"] *= 1.3
    return spent


@dataclass
class Maker:
    """Makes the runs of one sitting. `noise` is the standard deviation of a turn's logarithm."""

    seed: int = 1
    noise: float = 0.02
    sitting: str = "s1"
    slower: float = 1.0
    """All CPU figures and the calibration, as a factor."""
    dearer: float = 1.0
    """All CPU figures of the system, and not the generator's."""
    uneven: float = 0.0
    """How much the machine's speed differs from run to run: the standard deviation of its logarithm. The fixed piece of
    work tells it with an error of a third of that."""
    tails: bool = True
    busy: Busy = QUIET
    cpu_us: Callable[[Setup, Workload], dict[str, float]] = plain
    made: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def rows(self, experiment: str, series: str, whats: Iterable[tuple[Setup, Workload]], turns: int = 3) -> Maker:
        """Interleaved turns of each."""
        every = list(whats)
        for turn in range(1, turns + 1):
            for setup, work in self._random.sample(every, len(every)):
                self.made.append(self.run(experiment, series, setup, work, turn))
        return self

    def run(self, experiment: str, series: str, setup: Setup, work: Workload, turn: int = 1) -> Run:
        pace = self._random.gauss(0, self.uneven) if self.uneven else 0.0
        slower = self.slower * math.exp(pace)
        spent = {
            role: us * slower * (1 if role == "load" else self.dearer) * self._noise()
            for role, us in self.cpu_us(setup, work).items()
            if not (role == "process" and work.consumers == "frozen")
        }
        per_s = 1.75e6 / sum(spent.values()) * min(1.0, 0.35 + 0.12 * math.log2(work.connections + 1))
        order = len(self.made) + 1
        rates = round(per_s * work.seconds)
        tails = [self._tail(setup, work, offered, per_s, spent) for offered in work.offered] if self.tails else []
        return Run(
            version=document.VERSION,
            experiment=experiment,
            series=series,
            sitting=self.sitting,
            turn=turn,
            order=order,
            at=_START + timedelta(seconds=40 * order),
            command=f"python -m bench matrix {experiment}",
            commands=["nats-server -c nats.conf", "wrk -c64 -t1 -d10 http://127.0.0.1:8080"],
            fanrate="0.2.0",
            quick=False,
            commit="",
            machine=MACHINE,
            setup=setup,
            service_settings={},
            workload=work,
            outcome="measured",
            calibration_us=20_000 * slower * math.exp(self._random.gauss(0, 0.01 + self.uneven / 3)),
            warm_up=WarmUp([per_s * 0.9, per_s], agreed=True),
            peak=Peak(
                seconds=work.seconds,
                rates=rates,
                rates_per_s=per_s,
                failed=0,
                cpu_us_per_rate=spent,
                rates_per_message=21.0 * self._noise() if setup.system == "fanrate" else 1.0,
                busy=self.busy,
            ),
            tails=tails,
            memory_peak_bytes={role: round(held * self._noise()) for role, held in _MEMORY.items() if role in spent},
            holding=Holding(messages=rates // 20, stored_bytes=rates * 31, depth=rates // 20),
            ledger=Books(sent=rates, confirmed=rates, counted=rates, loss=0, dup=0),
        )

    def skipped(self, experiment: str, series: str, setup: Setup, work: Workload, reason: str) -> Maker:
        self.made.append(without_figures(self.run(experiment, series, setup, work), "skipped", reason))
        return self

    def write(self, folder: Path) -> Path:
        """One file per run, read back to be sure."""
        folder.mkdir(parents=True, exist_ok=True)
        for run in self.made:
            path = folder / f"{run.experiment}-{run.sitting}-{run.order:03}.json"
            document.write(run, path)
            assert document.read(path) == run
        return folder

    def _noise(self) -> float:
        return math.exp(self._random.gauss(0, self.noise))

    def _tail(self, setup: Setup, work: Workload, offered: float, per_s: float, spent: dict[str, float]) -> Tail:
        queue = 1 / max(0.02, 1.02 - offered) if offered <= 1 else 60 * offered**4
        base = 1.1 * {"nats": 1.0, "kafka": 1.6, "rabbit": 1.2, "redis": 0.9, "nats+core": 0.8}[setup.broker]
        p50 = base * queue * math.exp(self._random.gauss(0, 5 * self.noise))
        factors = {"p50": 1.0, "p90": 2.6, "p99": 7.0, "p99.9": 15.0, "max": 22.0}
        latency = {
            name: p50 * factor * math.exp(self._random.gauss(0, 3 * self.noise)) for name, factor in factors.items()
        }
        fresh = {"p50": 12.0, "p90": 22.0, "p99": 31.0, "p99.9": 44.0}
        scheduled = offered * per_s / work.rates_per_request
        own = setup.system == "fanrate" and work.consumers == "running"
        histogram = HdrHistogram(1, 60_000_000, 3)
        for each in latency.values():
            histogram.record_value(round(each * 1000))
        return Tail(
            offered=offered,
            scheduled_per_s=scheduled,
            confirmed_per_s=min(scheduled, per_s / work.rates_per_request),
            latency_ms=latency,
            histogram=histogram.encode().decode(),
            fell_behind=False,
            confirmed=round(min(scheduled, per_s / work.rates_per_request) * work.seconds),
            unsent=0,
            failed=0,
            generator_late_ms_p99=0.4,
            cpu_us_per_rate=spent,
            freshness_ms={name: each * self._noise() for name, each in fresh.items()} if own else {},
            probes=200 if own else 0,
            busy=self.busy,
        )


def without_figures(run: Run, outcome: document.Outcome, reason: str) -> Run:
    """The same run, come to nothing."""
    return msgspec.structs.replace(
        run,
        outcome=outcome,
        reason=reason,
        warm_up=None,
        peak=None,
        tails=[],
        memory_peak_bytes={},
        holding=None,
        ledger=None,
        calibration_us=0.0,
    )


def brokers(maker: Maker, *, turns: int = 3, names: Sequence[Broker] = BROKERS) -> Maker:
    """Brokers x 1 and 3 replicas x group and topics."""
    whats = [
        (
            Setup(
                broker=name, replicas=replicas, dispatch=dispatch, balancer="nginx-tuned" if replicas > 1 else "none"
            ),
            Workload(),
        )
        for name in names
        for replicas in (1, 3)
        for dispatch in ("group", "topics")
    ]
    return maker.rows("brokers", "brokers", whats, turns)


def peers(maker: Maker, turns: int = 3) -> Maker:
    """Systems x brokers, and one that is not there."""
    work = Workload()
    whats = [
        (Setup(broker=name, system=system), work)
        for name in ("nats", "kafka", "rabbit")
        for system in ("fanrate", *_PEER_CPU_US)
    ]
    maker.rows("peers", "peers", whats, turns)
    return maker.skipped(
        "peers",
        "peers",
        Setup(broker="redis", system="go"),
        work,
        "the Go toolchain is missing: apt-get install golang",
    )


def scale(maker: Maker, turns: int = 3) -> Maker:
    """One axis at a time."""
    shares = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
    alone = (0.5,)
    of_nats: dict[str, Any] = {"broker": "nats"}
    maker.rows(
        "scale",
        "replicas",
        [(Setup(broker=b, replicas=n, balancer="nginx-tuned"), Workload()) for b in BROKERS[:3] for n in (1, 2, 3)],
        turns,
    )
    maker.rows(
        "scale",
        "connections",
        [(Setup(**of_nats), Workload(connections=n, offered=alone)) for n in (1, 5, 64, 256, 1024)],
        turns,
    )
    maker.rows("scale", "subjects", [(Setup(**of_nats), Workload(subjects=n)) for n in (1, 100, 3000, 100_000)], turns)
    maker.rows(
        "scale",
        "rates per request",
        [(Setup(**of_nats), Workload(rates_per_request=n)) for n in (1, 10, 100, 1000, 10_000)],
        turns,
    )
    return maker.rows(
        "scale", "offered load", [(Setup(broker=b), Workload(offered=shares)) for b in ("nats", "kafka")], turns
    )


def matrix(maker: Maker, turns: int = 2) -> Maker:
    """Any product."""
    whats = [
        (
            Setup(broker=broker, replicas=replicas, dispatch=dispatch),
            Workload(connections=connections, seconds=5.0),
        )
        for broker in ("nats", "kafka")
        for replicas in (1, 2)
        for dispatch in ("group", "topics")
        for connections in (5, 256)
    ]
    return maker.rows("matrix", "matrix", whats, turns)
