"""Services before a broker, and the troubles that every broker's can have; all of it within this process, on memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from api.service import ApiService
from bench.client import Address
from brokers.memory import MemoryBroker
from core.settings import EmbeddedSettings, Replica
from core.telemetry import Exposition
from process.consumer import Consumer
from stack import parts
from stack.member import Member
from stack.supervisor import Stack
from store.memory import MemoryStore
from tests.servers import needs
from tests.trouble.load import Load, load_on

DRAIN_S = 8.0


class World(Protocol):
    """Services before a broker, and the troubles that every broker's can have."""

    nginx: Member
    forgets_s: float
    """Of what `remove_api` removed, how much of its last time may be missing from what it told the store."""

    def load(self) -> AbstractAsyncContextManager[Load]: ...

    def api_url(self, number: int) -> str: ...

    async def counted_by(self, number: int) -> int:
        """Rates that a process has counted since it was started."""

    async def restart_api(self, number: int) -> None:
        """Drain a replica and start it again on its address."""

    async def restart_process(self, number: int) -> None: ...

    async def stop_processes(self) -> None: ...

    async def start_processes(self) -> None: ...

    async def remove_api(self, number: int) -> None:
        """End a replica, as hard as this world can."""

    async def return_api(self, number: int) -> None:
        """Start a removed replica again."""


class MemoryWorld:
    """Everything but nginx within this process, so that broker and store outlive the parts that are restarted."""

    forgets_s = 0.0

    def __init__(self, settings: Replica) -> None:
        self._settings = settings
        self._broker = MemoryBroker(max_bytes=2**30, redeliver_after_s=2.0)
        self._store = MemoryStore(horizon_s=3600, idempotency_s=3600)
        self.apis: list[ApiService] = []
        self.ports: list[int] = []
        self.processes: list[Consumer] = []
        self.nginx: Member

    def load(self) -> AbstractAsyncContextManager[Load]:
        return load_on(self.nginx.url)

    async def start(self) -> None:
        self.apis = [await self._start_api(0) for _ in range(2)]
        self.ports = [Address.of(api.url).port for api in self.apis]
        await self.start_processes()

    async def close(self) -> None:
        for part in (*self.apis, *self.processes):
            await part.close()
        await self._broker.close()
        await self._store.close()

    def api_url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"

    async def counted_by(self, number: int) -> int:
        return metric_in(Exposition(self.processes[number].metrics).text(), "counted_rates")

    async def restart_api(self, number: int) -> None:
        await self.remove_api(number)
        await self.return_api(number)

    async def remove_api(self, number: int) -> None:
        await self.apis[number].drain(DRAIN_S)
        await self.apis[number].close()

    async def return_api(self, number: int) -> None:
        self.apis[number] = await self._start_api(self.ports[number])

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


def metric_in(metrics: bytes, name: str, kind: str = "total") -> int:
    """A metric of Fanrate's in what `/metrics` answers; a counter unless `kind` says otherwise."""
    found = re.search(rf"^fanrate_{name}_{kind} (\S+)".encode(), metrics, re.MULTILINE)
    assert found, metrics
    return int(float(found[1]))
