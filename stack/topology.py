"""A topology: a broker, API replicas, processes, perhaps a balancer; and how one is brought up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stack import parts
from stack.member import Member
from stack.ports import free_port
from stack.programs import find
from stack.supervisor import Stack

Broker = Literal["nats"]
Balancer = Literal["none", "nginx-plain", "nginx-tuned"]


@dataclass(frozen=True, slots=True)
class Topology:
    """`port` is the balancer's or, without one, the first replica's: replica k listens on port + k - 1. None takes free
    ones. `api_env` and `process_env` are further settings of the services."""

    broker: Broker = "nats"
    replicas: int = 1
    processes: int = 1
    balancer: Balancer = "none"
    port: int | None = None
    api_env: Mapping[str, str] = field(default_factory=dict)
    process_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def programs(self) -> list[str]:
        """The server programs it needs."""
        return ["redis-server", "nats-server", *([] if self.balancer == "none" else ["nginx"])]

    def replica_port(self, replica: int) -> int:
        """The port of replica `replica`, counted from 0."""
        if self.port is None or self.balancer != "none":
            return free_port()
        return self.port + replica


@dataclass(frozen=True, slots=True)
class Running:
    """A topology that is up. `urls` are where clients go: the balancer, or each replica."""

    stack: Stack
    redis: Member
    nats: Member
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
    for program in topology.programs:
        find(program)
    directory = stack.directory
    redis = await stack.start(parts.redis(directory), wait=False)
    nats = await stack.start(parts.nats(directory), wait=False)
    await redis.wait_ready()
    await nats.wait_ready()
    processes = [
        await stack.start(
            parts.process(
                directory, broker_url=nats.url, store_url=redis.url, name=f"process-{k + 1}", env=topology.process_env
            ),
            wait=False,
        )
        for k in range(topology.processes)
    ]
    apis = [
        await stack.start(
            parts.api(
                directory,
                broker_url=nats.url,
                store_url=redis.url,
                name=f"api-{k + 1}",
                port=topology.replica_port(k),
                env=topology.api_env,
            ),
            wait=False,
        )
        for k in range(topology.replicas)
    ]
    for member in (*processes, *apis):
        await member.wait_ready()
    nginx = None
    if topology.balancer != "none":
        upstream_ports = [api.port for api in apis]
        part = parts.nginx(directory, upstream_ports=upstream_ports, balancer=topology.balancer, port=topology.port)
        nginx = await stack.start(part)
    return Running(stack, redis, nats, apis, processes, nginx)
