"""What trouble is made for: two replicas and two processes behind nginx, on memory or on real servers."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from api.service import ApiService
from bench.client import Address, Connection
from brokers.memory import MemoryBroker
from core.settings import EmbeddedSettings, Replica
from core.telemetry import Exposition
from process.consumer import Consumer
from stack import parts
from stack.member import Member
from stack.supervisor import Stack
from stack.topology import Running, Topology, running
from store.memory import MemoryStore
from tests.servers import needs

DRAIN_S = 8.0


class World(Protocol):
    """A topology, and the troubles that every broker's can have. The parts of real servers are `NatsWorld.parts`."""

    nginx: Member
    forgets_s: float
    """Of what `remove_api` removed, how much of its last time may be missing from what it told the store."""

    def api_url(self, number: int) -> str: ...

    async def counted_by(self, number: int) -> int:
        """Rates that a process has counted since it was started."""

    async def restart_api(self, number: int) -> None:
        """Drain a replica and start it again on its address."""

    async def restart_process(self, number: int) -> None: ...

    async def stop_processes(self) -> None: ...

    async def start_processes(self) -> None: ...

    async def remove_api(self, number: int) -> None:
        """End a replica for good, as hard as this world can."""


class MemoryWorld:
    """Everything but nginx within this process, so that broker and store outlive the parts that are restarted."""

    forgets_s = 0.0

    def __init__(self, settings: Replica) -> None:
        self._settings = settings
        self._broker = MemoryBroker(max_bytes=2**30, redeliver_after_s=2.0)
        self._store = MemoryStore(horizon_s=3600, idempotency_s=3600)
        self.apis: list[ApiService | None] = []
        self.processes: list[Consumer] = []
        self.nginx: Member

    @property
    def ports(self) -> list[int]:
        return [int(api.url.rpartition(":")[2]) for api in self.apis if api]

    async def start(self) -> None:
        self.apis = [await self._start_api(0) for _ in range(2)]
        await self.start_processes()

    async def close(self) -> None:
        for part in (*self.apis, *self.processes):
            if part:
                await part.close()
        await self._broker.close()
        await self._store.close()

    def api_url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"

    async def counted_by(self, number: int) -> int:
        return _counted(Exposition(self.processes[number].metrics).text())

    async def restart_api(self, number: int) -> None:
        port = self.ports[number]
        await self.remove_api(number)
        self.apis[number] = await self._start_api(port)

    async def remove_api(self, number: int) -> None:
        api = self.apis[number]
        assert api
        await api.drain(DRAIN_S)
        await api.close()

    async def restart_process(self, number: int) -> None:
        await self.processes[number].drain(DRAIN_S)
        self.processes[number] = await self._start_process()

    async def stop_processes(self) -> None:
        for process in self.processes:
            await process.drain(DRAIN_S)

    async def start_processes(self) -> None:
        self.processes = [await self._start_process() for _ in range(2)]

    async def _start_api(self, port: int) -> ApiService:
        settings = self._settings.model_copy(update={"port": port})
        api = ApiService(self._broker, self._store, settings, topic="rates")
        await api.start()
        return api

    async def _start_process(self) -> Consumer:
        process = Consumer(self._broker, self._store, topic="rates", oldest_allowed_s=60)
        await process.start()
        return process


class NatsWorld:
    """Real servers and programs."""

    forgets_s = 0.5

    def __init__(self, parts: Running) -> None:
        assert parts.nginx
        self.parts = parts
        self.nginx = parts.nginx

    def api_url(self, number: int) -> str:
        return self.parts.apis[number].url

    async def counted_by(self, number: int) -> int:
        connection = Connection(Address.of(self.parts.processes[number].url))
        try:
            return _counted((await connection.get("/metrics")).body)
        finally:
            connection.close()

    async def restart_api(self, number: int) -> None:
        await _restart(self.parts.apis[number])

    async def remove_api(self, number: int) -> None:
        await self.parts.apis[number].kill()

    async def restart_process(self, number: int) -> None:
        await _restart(self.parts.processes[number])

    async def stop_processes(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.parts.processes))

    async def start_processes(self) -> None:
        for process in self.parts.processes:
            await process.start()


def _counted(metrics: bytes) -> int:
    found = re.search(rb"^fanrate_counted_rates_total (\S+)", metrics, re.MULTILINE)
    assert found, metrics
    return int(float(found[1]))


async def _restart(member: Member) -> None:
    code = await member.stop()
    assert code in (0, -signal.SIGTERM), f"{member.name} ended with {code}:\n{member.log_tail()}"
    await member.start()


@asynccontextmanager
async def memory_world(directory: Path) -> AsyncIterator[MemoryWorld]:
    needs("nginx")
    world = MemoryWorld(EmbeddedSettings(port=0))
    try:
        await world.start()
        async with Stack(directory) as stack:
            world.nginx = await stack.start(parts.nginx(directory, upstream_ports=world.ports))
            yield world
    finally:
        await world.close()


@asynccontextmanager
async def nats_world(directory: Path) -> AsyncIterator[NatsWorld]:
    needs("redis-server", "nats-server", "nginx")
    topology = Topology(broker="nats", replicas=2, processes=2, balancer="nginx-tuned")
    async with running(topology, directory) as parts_:
        yield NatsWorld(parts_)
