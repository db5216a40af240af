"""A topology: a broker, API replicas, processes, perhaps a balancer; and how one is brought up."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from core.errors import SettingsError
from core.settings import SPACING, Dispatch, Durability
from stack import parts
from stack.configuration import Balancer
from stack.kafka import kafka, kafka_jars
from stack.locks import Locks
from stack.member import Member
from stack.parts import Part
from stack.ports import free_port
from stack.programs import MissingProgram, find
from stack.rabbit import rabbit
from stack.supervisor import Stack

Broker = Literal["nats", "nats+core", "kafka", "rabbit", "redis"]


class MakePart(Protocol):
    """Makes a broker's part; raises MissingProgram."""

    def __call__(self, directory: Path, *, durability: Durability, name: str = ..., locks: Locks = ...) -> Part: ...


@dataclass(frozen=True, slots=True)
class Server:
    """What serves a broker: its program, and the part that runs it."""

    program: str
    make: MakePart


SERVERS: Final[dict[Broker, Server]] = {
    "nats": Server("nats-server", parts.nats),
    "nats+core": Server("nats-server", parts.nats_core),
    "kafka": Server("java", kafka),
    "rabbit": Server("rabbitmq-server", rabbit),
    "redis": Server("redis-server", parts.redis_streams),
}


@dataclass(frozen=True, slots=True)
class Topology:
    """`port` is the balancer's or, without one, the first replica's: replica k listens on port + k - 1. None takes free
    ones. `api_env` and `process_env` are further settings of the services. With `dispatch` inline there is neither
    broker nor process, whatever is asked for. Raises SettingsError where a process would have nothing to do."""

    broker: Broker = "nats"
    replicas: int = 1
    processes: int = 1
    balancer: Balancer | None = None
    port: int | None = None
    dispatch: Dispatch = "group"
    topics: int = 3
    durability: Durability = "confirmed"
    api_env: Mapping[str, str] = field(default_factory=dict)
    process_env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dispatch == "topics" and self.processes > self.topics:
            raise SettingsError(
                f"PROCESSES={self.processes} and TOPICS={self.topics}: {self.processes - self.topics} of the processes "
                "would have no topic to read; raise TOPICS or lower PROCESSES"
            )

    @property
    def server(self) -> Server | None:
        """What serves the broker, if there is one."""
        return None if self.dispatch == "inline" else SERVERS[self.broker]

    @property
    def programs(self) -> Sequence[str]:
        """The server programs it needs."""
        broker = [] if self.server is None else [self.server.program]
        balancer = [] if self.balancer is None else ["nginx"]
        return list(dict.fromkeys(["redis-server", *broker, *balancer]))

    @property
    def settings(self) -> dict[str, str]:
        """What all its services are told."""
        return {"DISPATCH": self.dispatch, "DURABILITY": self.durability, "TOPICS": str(self.topics)}

    def check_programs(self) -> None:
        """Raises MissingProgram with the remedy for this broker."""
        try:
            for program in self.programs:
                find(program)
            if self.server is not None and self.broker == "kafka":
                kafka_jars()
        except MissingProgram as exc:
            raise MissingProgram(exc.name, self.broker) from None

    def broker_part(self, directory: Path) -> Part | None:
        return None if self.server is None else self.server.make(directory, durability=self.durability)

    @property
    def api_settings(self) -> dict[str, str]:
        """What its replicas are told. Several of them share this machine."""
        spacing = SPACING if self.replicas > 1 and not any(map(os.environ.get, SPACING)) else {}
        return {**self.settings, **spacing, **self.api_env}

    def process_settings(self, process: int) -> dict[str, str]:
        """What process `process`, counted from 0, is told: its share of the topics, each of which one process reads."""
        if self.dispatch != "topics":
            return {**self.settings, **self.process_env}
        share = [str(topic) for topic in range(1, self.topics + 1) if topic % self.processes == process]
        return {**self.settings, "READ_TOPICS": ",".join(share), **self.process_env}

    def replica_port(self, replica: int) -> int:
        """The port of replica `replica`, counted from 0."""
        if self.port is None or self.balancer is not None:
            return free_port()
        return self.port + replica


@dataclass(frozen=True, slots=True)
class Running:
    """A topology that is up. `urls` are where clients go: the balancer, or each replica."""

    stack: Stack
    redis: Member
    broker: Member | None
    apis: list[Member]
    processes: list[Member]
    nginx: Member | None

    @property
    def urls(self) -> list[str]:
        return [api.url for api in self.apis] if self.nginx is None else [self.nginx.url]

    @property
    def url(self) -> str:
        return self.urls[0]


@asynccontextmanager
async def running(
    topology: Topology, directory: Path, *, say: Callable[[str], None] | None = None
) -> AsyncIterator[Running]:
    """`topology`, up and ready, with its files in `directory`; stopped gracefully at the end. Raises MissingProgram,
    PortTaken or PartFailed."""
    async with Stack(directory) if say is None else Stack(directory, say=say) as stack:
        yield await bring_up(topology, stack)


async def bring_up(topology: Topology, stack: Stack) -> Running:
    """Start all parts of `topology` in `stack` and wait until each is ready; raises MissingProgram before the first is
    started, PortTaken or PartFailed."""
    topology.check_programs()
    redis, broker = await _start_servers(topology, stack)
    processes, apis = await _start_services(topology, stack, redis, broker)
    nginx = None
    if topology.balancer is not None:
        upstream_ports = [api.port for api in apis]
        part = parts.nginx(
            stack.directory, upstream_ports=upstream_ports, balancer=topology.balancer, port=topology.port
        )
        nginx = await stack.start(part)
    return Running(stack, redis, broker, apis, processes, nginx)


async def _start_servers(topology: Topology, stack: Stack) -> tuple[Member, Member | None]:
    """All at once: a broker takes seconds. The store, and the broker if there is one."""
    broker_part = topology.broker_part(stack.directory)
    redis = await stack.start(parts.redis(stack.directory, durability=topology.durability), wait=False)
    broker = None if broker_part is None else await stack.start(broker_part, wait=False)
    await redis.wait_ready()
    if broker is not None:
        await broker.wait_ready()
    return redis, broker


async def _start_services(
    topology: Topology, stack: Stack, redis: Member, broker: Member | None
) -> tuple[list[Member], list[Member]]:
    """The processes and the replicas."""
    broker_url = None if broker is None else broker.url
    processes = [
        await stack.start(
            parts.process(
                stack.directory,
                broker_url=broker.url,
                store_url=redis.url,
                name=f"process-{k + 1}",
                env=topology.process_settings(k),
            ),
            wait=False,
        )
        for k in range(topology.processes)
        if broker is not None
    ]
    apis = [
        await stack.start(
            parts.api(
                stack.directory,
                broker_url=broker_url,
                store_url=redis.url,
                name=f"api-{k + 1}",
                port=topology.replica_port(k),
                env=topology.api_settings,
            ),
            wait=False,
        )
        for k in range(topology.replicas)
    ]
    for member in (*processes, *apis):
        await member.wait_ready()
    return processes, apis
