"""Services on real servers: two replicas and two processes behind nginx, and others beside them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from bench.client import Address, ClientError, Connection
from brokers.base import Broker
from core.counting import GROUP
from core.letters import GROUP as REDRIVE
from core.letters import dead_topic
from core.lifecycle import until
from stack import parts
from stack.member import Member
from stack.ports import free_port
from stack.supervisor import Stack
from tests.servers import needs
from tests.trouble.kinds import Kind, Way
from tests.trouble.load import Load, load_on
from tests.trouble.proxy import Proxy
from tests.trouble.world import metric_in

SOON_S = 10.0
HOLDS_S = 30.0
"""How long it may take until a process has fetched: a broker that has much on its way to others hands out no more."""
TOPIC_BYTES = 32 * 2**20
_names = count(1)


@dataclass(frozen=True, slots=True)
class Services:
    """A replica and a process with a topic and a store of their own, so that what becomes of them spoils no other."""

    world: ServedWorld
    topic: str
    redis: Member
    api: Member
    process: Member

    def load(self) -> AbstractAsyncContextManager[Load]:
        return load_on(self.api.url, soon_s=self.world.kind.flows_again_s)

    async def counted(self) -> int:
        return await metric_of(self.process, "counted_rates")

    async def delete_topic(self) -> None:
        await self.world.kind.delete_topic(self.world.broker.url, self.topic)

    def connections(self, port: int) -> int:
        """Connections of both to what listens on `port`."""
        return connections_to(port, self.api) + connections_to(port, self.process)


class ServedWorld:
    """Real servers and programs."""

    forgets_s = 0.5

    def __init__(
        self,
        kind: Kind,
        stack: Stack,
        broker: Member,
        way: Way,
        redis: Member,
        apis: Sequence[Member],
        processes: Sequence[Member],
        nginx: Member,
    ) -> None:
        self.kind = kind
        self.stack = stack
        self.broker = broker
        self.way = way
        self.redis = redis
        self.apis = list(apis)
        self.processes = list(processes)
        self.nginx = nginx

    @property
    def members(self) -> list[Member]:
        return [self.broker, self.redis, *self.apis, *self.processes, self.nginx]

    def load(self) -> AbstractAsyncContextManager[Load]:
        return load_on(self.nginx.url, soon_s=self.kind.flows_again_s)

    def api_url(self, number: int) -> str:
        return self.apis[number].url

    async def counted_by(self, number: int) -> int:
        return await metric_of(self.processes[number], "counted_rates")

    async def restart_api(self, number: int) -> None:
        await _restart(self.apis[number])

    async def remove_api(self, number: int) -> None:
        await self.apis[number].kill()

    async def return_api(self, number: int) -> None:
        await self.apis[number].start()

    async def restart_process(self, number: int) -> None:
        await _restart(self.processes[number])

    async def stop_processes(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))

    async def start_processes(self) -> None:
        for process in self.processes:
            await process.start()

    @asynccontextmanager
    async def further_process(self) -> AsyncIterator[Member]:
        """A third member of the counting group, started."""
        env, urls = settings_of(self.kind), {"broker_url": self.broker.url, "store_url": self.redis.url}
        part = parts.process(self.stack.directory, name=f"process-{next(_names)}-further", env=env, **urls)
        member = await self.stack.start(part)
        try:
            yield member
        finally:
            await member.kill()

    @asynccontextmanager
    async def holding(self, process: Member) -> AsyncIterator[None]:
        """While this lasts, `process` has messages and cannot settle them: Redis is frozen."""
        self.redis.freeze()
        try:
            async with asyncio.timeout(HOLDS_S):
                while not await _holds(process):
                    await asyncio.sleep(0.01)
            yield
        finally:
            self.redis.thaw()

    def proxy(self) -> Proxy:
        """Before the broker."""
        return Proxy(self.way.inner if self.kind.listens_to_proxy else self.broker.port, port=self.way.outer)

    @asynccontextmanager
    async def adapter(self, *, topic_bytes: int = TOPIC_BYTES) -> AsyncIterator[Broker]:
        """A client of the broker, connected."""
        broker = self.kind.broker(self.broker.url, topic_bytes=topic_bytes)
        await broker.start()
        try:
            assert await until(lambda: broker.connected, SOON_S)
            yield broker
        finally:
            await broker.close()

    @asynccontextmanager
    async def services(
        self,
        purpose: str,
        *,
        topics: int = 0,
        groups: Sequence[str] = (GROUP,),
        topic_bytes: int = TOPIC_BYTES,
        broker_port: int | None = None,
    ) -> AsyncIterator[Services]:
        """A replica and a process on this broker, with `topics` dispatching to so many. What they use is made before
        they come, and smaller than they would make it: a full one is soon reached, and a server has room for many."""
        topic = f"{purpose}-{next(_names)}"
        async with self.adapter(topic_bytes=topic_bytes) as broker:
            for name in [f"{topic}_{number + 1}" for number in range(topics)] or [topic]:
                await broker.ensure(name, groups)
            await broker.ensure(dead_topic(topic), [REDRIVE])
        env = {"TOPIC": topic, "GROUPS": ",".join(groups), **settings_of(self.kind)}
        if topics:
            env |= {"DISPATCH": "topics", "TOPICS": str(topics)}
        directory = self.stack.directory
        redis = await self.stack.start(parts.redis(directory, name=f"redis-{topic}"))
        broker_url = self.broker.url.replace(f":{self.broker.port}", f":{broker_port or self.broker.port}")
        urls = {"broker_url": broker_url, "store_url": redis.url}
        process = await self.stack.start(parts.process(directory, name=f"process-{topic}", env=env, **urls), wait=False)
        api = await self.stack.start(parts.api(directory, name=f"api-{topic}", env=env, **urls), wait=False)
        try:
            await process.wait_ready()
            await api.wait_ready()
            yield Services(self, topic, redis, api, process)
        finally:
            for member in (api, process, redis):
                await member.kill()

    def idle(self) -> bool:
        return all(member.ready for member in self.members)

    async def is_as_new(self) -> bool:
        """Whether a further trouble can be made for it: all is ready, and nothing is left of the one before."""
        if not self.idle():
            return False
        connection = Connection(Address.of(self.nginx.url), timeout_s=2.0)
        try:
            return (await connection.get("/opened")).body.startswith(b'{"opened":0,')
        except ClientError:
            return False
        finally:
            connection.close()

    def thaw(self) -> None:
        """Let go on what a failed case left frozen."""
        for member in self.members:
            if member.running:
                member.thaw()

    def connections(self) -> dict[str, int]:
        """Connections to the broker, of each service."""
        return {member.name: connections_to(self.broker.port, member) for member in (*self.apis, *self.processes)}


def connections_to(port: int, member: Member) -> int:
    found = psutil.Process(member.pid).net_connections("tcp")
    return sum(bool(each.raddr) and each.raddr.port == port for each in found)


async def metric_of(member: Member, name: str) -> int:
    """A counter of a process, since it was started."""
    return metric_in(await _metrics(member), name)


async def _holds(process: Member) -> bool:
    metrics = await _metrics(process)
    return metric_in(metrics, "fetch_messages", "count") > metric_in(metrics, "settle_seconds", "count")


async def _metrics(member: Member) -> bytes:
    connection = Connection(Address.of(member.url))
    try:
        return (await connection.get("/metrics")).body
    finally:
        connection.close()


def settings_of(kind: Kind) -> dict[str, str]:
    """Of the services. Requests are told sooner than by default that a confirm takes too long: so an outage need not
    last as long to be one."""
    return {"DURABILITY": kind.durability, "CONFIRM_TIMEOUT_S": "2", "PUBLISH_TIMEOUT_S": "2"}


async def _restart(member: Member) -> None:
    code = await member.stop()
    assert code in (0, -signal.SIGTERM), f"{member.name} ended with {code}:\n{member.log_tail()}"
    await member.start()


@asynccontextmanager
async def served_world(kind: Kind, directory: Path) -> AsyncIterator[ServedWorld]:
    needs("redis-server", *kind.programs, "nginx")
    way = Way(free_port(), free_port())
    async with Stack(directory) as stack:
        broker = await stack.start(kind.make_part(directory, way), wait=False)
        redis = await stack.start(parts.redis(directory), wait=False)
        await broker.wait_ready()
        await redis.wait_ready()
        urls = {"broker_url": broker.url, "store_url": redis.url}
        env = settings_of(kind)
        processes = [
            await stack.start(parts.process(directory, name=f"process-{number}", env=env, **urls), wait=False)
            for number in (1, 2)
        ]
        apis = [
            await stack.start(parts.api(directory, name=f"api-{number}", env=env, **urls), wait=False)
            for number in (1, 2)
        ]
        for service in (*processes, *apis):
            await service.wait_ready()
        nginx = await stack.start(parts.nginx(directory, upstream_ports=[api.port for api in apis]))
        yield ServedWorld(kind, stack, broker, way, redis, apis, processes, nginx)
