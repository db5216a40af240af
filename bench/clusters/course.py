"""One course: a cluster under steady load loses its leading node, gets it back, and loses the next.

Two replicas of the API, two processes. Every rate is one of a kind, a subject and a value that no other has, so the
ledger finds each that is lost and each that is counted twice.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final, Literal

from bench.client import Address
from bench.clusters.asking import Unanswered
from bench.clusters.gaps import longest_gap_s
from bench.clusters.losing import BrokerNodes, Losing, StoreNodes
from bench.ledger import Ledger, Verdict
from bench.load import OpenLoopReport, Request, rate_request
from bench.open_loop import open_loop
from bench.reading import Reader, UnreadableService, await_counted
from bench.schedule import Schedule
from core.errors import FanrateError
from stack import parts
from stack.clusters import CLUSTERS, Cluster, redis_nodes, replicated
from stack.member import Member
from stack.supervisor import Stack

Kind = Literal["nats", "kafka", "rabbit", "redis"]
"""Whose cluster: that of a broker, or the store's Redis, with a single NATS before it."""

KILLS: Final = 2
PER_S: Final = 300.0
"""Requests, over both replicas: enough that a gap shows, few enough to leave the processors to the servers."""
CONNECTIONS: Final = 64
"""To each replica."""
REPLICAS: Final = 2
STEADY_S: Final = 5.0
"""How long all goes well before a node is killed, and at the end."""
DEAD_S: Final = 15.0
"""How long a killed node stays down at least."""
PATIENCE_S: Final = 90.0
"""How long anything may take that is waited for."""
LONGEST_S: Final = 600.0

_RATES: Final = 101
_LOOK_S: Final = 0.1
_ASK_S: Final = 1.0


class Stuck(FanrateError):
    """What was waited for did not come to be."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One node, killed and back. Times are seconds."""

    node: str
    leads: str
    unconfirmed_s: float
    """The longest time without a confirm by one replica, from the kill until the next."""
    uncounted_s: float
    in_sync_s: float
    """From its start until all copies were in sync again."""


@dataclass(frozen=True, slots=True)
class Course:
    kind: Kind
    kills: list[Kill]
    verdict: Verdict
    confirmed: int
    """Rates answered 200."""
    failed: int
    """Requests that were not."""


@dataclass(slots=True)
class Watched:
    """What happens while the load goes on, with the time of each."""

    ledger: Ledger
    reader: Reader
    reports: list[OpenLoopReport] = field(default_factory=list)
    """What becomes of the requests to each replica, so far."""
    counted_at: array[float] = field(default_factory=lambda: array("d"))
    """`time.monotonic` of each look that found more counted."""
    total: int = 0

    async def watch(self) -> None:
        """Look at the total for ever; one that cannot be read has not grown."""
        while True:
            try:
                found = (await self.reader.totals()).count
            except UnreadableService:
                found = self.total
            if found > self.total:
                self.total = found
                self.counted_at.append(time.monotonic())
            await asyncio.sleep(_LOOK_S)

    async def flows(self) -> None:
        """Wait until there were more confirms and more was counted."""
        confirmed, total = self.confirmed, self.total
        async with _within(PATIENCE_S, "no confirms, or nothing counted"):
            while self.confirmed == confirmed or self.total == total:
                await asyncio.sleep(_LOOK_S)

    @property
    def confirmed(self) -> int:
        """By all replicas, so far."""
        return sum(report.confirmed for report in self.reports)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is up. `nodes` are those that are killed."""

    losing: Losing
    nodes: Sequence[Member]
    apis: Sequence[Member]


async def run(kind: Kind, directory: Path, say: Callable[[str], None]) -> Course:
    """Raises MissingProgram, PartFailed, Unanswered or Stuck."""
    began = time.monotonic()
    async with Stack(directory, say=say) as stack:
        scene = await _bring_up(kind, stack)
        await _until_in_sync(scene)
        say(f"{len(scene.nodes)} nodes up and in sync after {time.monotonic() - began:.0f} s; {PER_S:g} requests/s")
        reader = Reader(Address.of(scene.apis[0].url))
        try:
            return await _course(kind, scene, reader, say)
        finally:
            reader.close()


async def _course(kind: Kind, scene: Scene, reader: Reader, say: Callable[[str], None]) -> Course:
    ledger = Ledger()
    before = await reader.read([])
    watched = Watched(ledger, reader, total=before.total)
    async with _load(scene, watched):
        moments = [await _lose(scene, watched, say) for _ in range(KILLS)]
        await asyncio.sleep(STEADY_S)
        await watched.flows()
    verdict = await await_counted(reader, ledger, before, patience_s=PATIENCE_S)
    ends = [*(moment.at for moment in moments[1:]), max(report.confirmed_at[-1] for report in watched.reports)]
    kills = [_kill(moment, until, watched) for moment, until in zip(moments, ends, strict=True)]
    failed = sum(report.failed for report in watched.reports)
    return Course(kind, kills, verdict, ledger.confirmed_rates, failed)


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a node was killed."""

    at: float
    node: str
    leads: str
    in_sync_s: float


async def _lose(scene: Scene, watched: Watched, say: Callable[[str], None]) -> _Moment:
    """Kill the leader, go on without it, and start it again; returns once all is as it was."""
    await asyncio.sleep(STEADY_S)
    await watched.flows()
    node = await _answered(scene.losing.asking.leader)
    leads = scene.losing.asking.leads
    say(f"kill -9 {node.name}, which leads {leads}")
    at = time.monotonic()
    await scene.losing.lose(node)
    await asyncio.sleep(DEAD_S)
    await watched.flows()
    say(f"confirming and counting without {node.name}; starting it again")
    started = time.monotonic()
    await scene.losing.bring_back(node)
    await _until_in_sync(scene)
    in_sync_s = time.monotonic() - started
    say(f"{node.name} is in sync after {in_sync_s:.0f} s")
    return _Moment(at, node.name, leads, in_sync_s)


def _kill(moment: _Moment, until: float, watched: Watched) -> Kill:
    unconfirmed_s = max(longest_gap_s(report.confirmed_at, moment.at, until) for report in watched.reports)
    uncounted_s = longest_gap_s(watched.counted_at, moment.at, until)
    return Kill(moment.node, moment.leads, unconfirmed_s, uncounted_s, moment.in_sync_s)


@asynccontextmanager
async def _load(scene: Scene, watched: Watched) -> AsyncIterator[None]:
    """Both replicas under load, and the total watched, until the end of the block and of the answers under way."""
    stop = asyncio.Event()
    numbers = count()

    async def send(api: Member) -> None:
        address = Address.of(api.url)
        report = OpenLoopReport()
        watched.reports.append(report)
        await open_loop(
            [address],
            _requests(address, numbers),
            watched.ledger,
            Schedule(PER_S / REPLICAS, LONGEST_S),
            connections=CONNECTIONS,
            stop=stop,
            report=report,
        )

    watching = asyncio.create_task(watched.watch(), name="watch the total")
    sending = [asyncio.create_task(send(api), name=f"load {api.name}") for api in scene.apis]
    try:
        yield
        stop.set()
        await asyncio.gather(*sending)
    finally:
        for task in (watching, *sending):
            task.cancel()
        await asyncio.gather(watching, *sending, return_exceptions=True)


def _requests(address: Address, numbers: Iterator[int]) -> Iterator[Request]:
    for number in numbers:
        yield rate_request(address, (f"film-{number // _RATES}", number % _RATES))


async def _bring_up(kind: Kind, stack: Stack) -> Scene:
    if kind == "redis":
        plain = redis_nodes(stack.directory)
        redis = replicated(plain)
        stores = await _start(redis, stack)
        nats = await stack.start(parts.nats(stack.directory))
        apis = await _services(stack, nats.url, redis.url, {"STORE_REPLICAS": "1"})
        return Scene(StoreNodes(stores, plain), stores, apis)
    cluster = CLUSTERS[kind](stack.directory)
    store = await stack.start(parts.redis(stack.directory), wait=False)
    nodes = await _start(cluster, stack)
    await store.wait_ready()
    apis = await _services(stack, cluster.url, store.url, {})
    return Scene(BrokerNodes(kind, nodes), nodes, apis)


async def _start(cluster: Cluster, stack: Stack) -> list[Member]:
    for part in cluster.before:
        await stack.start(part)
    members = [await stack.start(part, wait=False) for part in cluster.nodes]
    for member in members:
        await member.wait_ready(PATIENCE_S)
    return members


async def _services(stack: Stack, broker_url: str, store_url: str, env: dict[str, str]) -> list[Member]:
    """Two processes and the replicas, which are returned."""
    processes = [
        parts.process(stack.directory, broker_url=broker_url, store_url=store_url, name=f"process-{k}", env=env)
        for k in (1, 2)
    ]
    apis = [
        parts.api(stack.directory, broker_url=broker_url, store_url=store_url, name=f"api-{k}", env=env)
        for k in range(1, REPLICAS + 1)
    ]
    members = [await stack.start(part, wait=False) for part in (*processes, *apis)]
    for member in members:
        await member.wait_ready(PATIENCE_S)
    return members[len(processes) :]


async def _until_in_sync(scene: Scene) -> None:
    trouble = ""
    async with _within(PATIENCE_S, lambda: trouble):
        while True:
            try:
                trouble = await scene.losing.asking.trouble()
            except Unanswered as exc:
                trouble = str(exc)
            if not trouble:
                return
            await asyncio.sleep(_ASK_S)


async def _answered(ask: Callable[[], Awaitable[Member]]) -> Member:
    """Right after a change the servers may not know yet."""
    said = ""
    async with _within(PATIENCE_S, lambda: said):
        while True:
            try:
                return await ask()
            except Unanswered as exc:
                said = str(exc)
            await asyncio.sleep(_ASK_S)


@asynccontextmanager
async def _within(timeout_s: float, trouble: str | Callable[[], str]) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as exc:
        said = trouble if isinstance(trouble, str) else trouble()
        raise Stuck(f"for {timeout_s:g} s: {said}") from exc
