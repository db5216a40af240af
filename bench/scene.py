"""The scene of a measure: a topology, programs beside it to compare with, accounts by role, and the run's ledger.

The roles are `api`, `process`, `broker`, `redis` (the store's), `balancer` and `load`: whatever sends.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import accounts, wrk
from bench.bars import CONNECTIONS, Options
from bench.client import Address
from bench.ledger import Ledger, Verdict, compare_totals
from bench.load import OpenLoopReport, film_requests
from bench.open_loop import open_loop
from bench.reading import PATIENCE_S, Patience, Reader
from bench.runs import OUT, SCENE
from bench.schedule import Schedule
from core.commands import child
from stack import parts
from stack.member import Member
from stack.parts import Part, Tier
from stack.ports import HOST, free_port
from stack.probes import LISTENS
from stack.topology import Running, Topology, running

WARM_UP_S = 1.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """One load of wrk and what each role's CPU did meanwhile."""

    peak: wrk.Peak
    cpu_s: Mapping[str, float]

    def cpu_us(self, role: str) -> float:
        """CPU microseconds of `role` per confirmed rate."""
        return self.cpu_s[role] / max(1, self.peak.confirmed_rates) * 1e6

    @property
    def cpu_us_per_rate(self) -> dict[str, float]:
        """The same of each role."""
        return {role: round(self.cpu_us(role), 2) for role in self.cpu_s}

    def sample(self, **more: object) -> dict[str, object]:
        cpu_us = self.cpu_us_per_rate
        return {**more, "rates_per_s": round(self.peak.per_s), "cpu_us_per_rate": cpu_us, "wrk": self.peak}


@dataclass(slots=True)
class Scene:
    """A running topology under measurement."""

    topology: Topology
    running: Running
    reader: Reader
    options: Options
    counted_before: int = 0
    sent: int = 0
    confirmed: int = 0
    commands: dict[str, None] = field(default_factory=dict)

    @property
    def api(self) -> Member:
        return self.running.apis[0]

    @property
    def process(self) -> Member:
        return self.running.processes[0]

    @property
    def broker(self) -> Member:
        """Raises AssertionError with dispatch inline, where there is none."""
        assert self.running.broker is not None
        return self.running.broker

    @property
    def members(self) -> dict[str, list[Member]]:
        """Those of each role that is there."""
        up = self.running
        broker = [] if up.broker is None else [up.broker]
        balancer = [] if up.nginx is None else [up.nginx]
        members = {
            "api": up.apis,
            "process": up.processes,
            "broker": broker,
            "redis": [up.redis],
            "balancer": balancer,
        }
        return {role: each for role, each in members.items() if each}

    @property
    def api_rss_bytes(self) -> int:
        """What the first replica holds now."""
        return accounts.read({"api": [self.api.pid]})["api"].rss_bytes

    @property
    def settings(self) -> dict[str, str]:
        """What further services of this scene are started with."""
        return {**self.topology.settings, **_QUIET}

    @property
    def roles(self) -> dict[str, list[int]]:
        """The process ids of each role that is up."""
        return {role: [member.pid for member in each if member.running] for role, each in self.members.items()}

    async def load(
        self,
        target: Member,
        *,
        role: str = "api",
        script: wrk.Script = "rate",
        connections: int = CONNECTIONS,
        seconds: float | None = None,
    ) -> Load:
        """Full load on `target`, which is accounted for as `role`; what it sends goes into the books unless the target
        counts nothing, as the `baseline`."""
        seconds = seconds or self.options.seconds
        address = Address.of(target.url)
        command = wrk.command(address, f"bench/wrk/{script}.lua", connections=connections, seconds=seconds)
        self.commands[shlex.join(command)] = None
        roles = {**self.roles, role: [target.pid]}
        before, own_before_s = accounts.read(roles), accounts.own_cpu_s()
        peak = await wrk.run(address, script, connections=connections, seconds=seconds)
        used = accounts.cpu_used_s(before, accounts.read(roles))
        used["load"] = accounts.own_cpu_s() - own_before_s
        if role != "baseline":
            self.book(sent=peak.sent_rates, confirmed=peak.confirmed_rates)
        return Load(peak, used)

    async def load_alone(self, target: Member, *, connections: int = CONNECTIONS, seconds: float | None = None) -> Load:
        """Like `load`, with the consumer frozen meanwhile; it catches up before this returns."""
        self.process.freeze()
        try:
            load = await self.load(target, connections=connections, seconds=seconds)
        finally:
            self.process.thaw()
        await self.settle()
        return load

    async def load_on_schedule(self, target: Member, per_s: float, seconds: float) -> tuple[OpenLoopReport, Ledger]:
        """So many `POST /rate` a second on `target`, each at its time, which go into the books."""
        address, ledger = Address.of(target.url), Ledger()
        schedule = Schedule(per_s, seconds)
        report = await open_loop([address], film_requests(address), ledger, schedule, connections=CONNECTIONS)
        self.book(sent=ledger.sent_rates, confirmed=ledger.confirmed_rates)
        return report, ledger

    def book(self, *, sent: int, confirmed: int) -> None:
        self.sent += sent
        self.confirmed += confirmed

    async def start_replica(self, name: str, **settings: str) -> Member:
        """A further replica on the same broker and store, with `settings` of its own."""
        stack = self.running.stack
        part = parts.api(
            stack.directory,
            broker_url=self.broker.url,
            store_url=self.running.redis.url,
            name=name,
            env={**self.settings, **settings},
        )
        return await stack.start(part)

    async def start_app(self, module: str, *arguments: str, name: str = "") -> Member:
        """Start `python -m MODULE PORT ARGUMENTS`, which listens on PORT; it is called like its module, or `name`."""
        port = free_port()
        argv = [*child(module), str(port), *arguments]
        self.commands[shlex.join(argv)] = None
        name = name or module.rpartition(".")[2]
        log = self.running.stack.directory / "logs" / f"{name}.log"
        part = Part(name, Tier.API, argv, port, f"http://{HOST}:{port}", log, LISTENS)
        return await self.running.stack.start(part)

    async def settle(self) -> Verdict:
        """Wait until all that was confirmed is counted and nothing is under way; the ledger over everything so far."""
        waiting = Patience(PATIENCE_S)
        while True:
            counted = (await self.reader.totals()).count - self.counted_before
            if counted >= self.confirmed and (await self.reader.opened()).opened == 0:
                break
            waiting.observe(counted)
            if waiting.over:
                break
            await asyncio.sleep(_POLL_S)
        counted = (await self.reader.totals()).count - self.counted_before
        return compare_totals(sent=self.sent, confirmed=self.confirmed, counted=counted)


_QUIET = {"LOG_LEVEL": "warning"}
_ON_NATS = Topology(broker="nats")


@asynccontextmanager
async def scene(options: Options, topology: Topology = _ON_NATS, folder: Path = OUT) -> AsyncIterator[Scene]:
    """`topology`, whose files lie in a folder of their own in `folder`, on this disk and not in a memory file system,
    and whose services log only warnings. The first replica is the one that is read. Raises OSError."""
    topology = replace(topology, api_env={**_QUIET, **topology.api_env}, process_env={**_QUIET, **topology.process_env})
    with TemporaryDirectory(prefix=SCENE, dir=_made(folder)) as directory:
        async with running(topology, Path(directory)) as up:
            reader = Reader(Address.of(up.apis[0].url))
            try:
                yield Scene(topology, up, reader, options)
            finally:
                reader.close()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
