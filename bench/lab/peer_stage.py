"""Another system before the same broker, on a topic that our own adapter made: up, and accounted for by the broker's
own count of messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import holdings
from bench.bars import Options
from bench.client import Address
from bench.folding import TOPIC, connected
from bench.lab.document import Holding, Setup
from bench.lab.stage import Stage, summed
from bench.ledger import Verdict, compare_totals
from bench.load import Request
from bench.peers import PEERS, Peer
from bench.peers.peer import check_asked
from bench.reading import Patience
from core.counting import GROUP
from core.rates import Rate
from stack import parts
from stack.member import Member
from stack.supervisor import Stack
from stack.topology import SERVERS, Topology

_SETTLE_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass
class PeerStage(Stage):
    """Replicas of one peer."""

    setup: Setup
    peer: Peer
    directory: Path
    broker: Member
    replicas: Sequence[Member]
    nginx: Member | None
    sent: int = 0
    confirmed: int = 0

    def __post_init__(self) -> None:
        self.confirmed_status = self.peer.confirmed

    @property
    def members(self) -> Mapping[str, Sequence[Member]]:
        members = {"api": self.replicas, "broker": [self.broker]}
        return members if self.nginx is None else {**members, "balancer": [self.nginx]}

    @property
    def addresses(self) -> list[Address]:
        return [Address.of(member.url) for member in ([self.nginx] if self.nginx else self.replicas)]

    def request(self, address: Address, rates: Sequence[Rate]) -> Request:
        return self.peer.request(address, rates[0])

    async def warm(self, options: Options) -> None:
        """A message per request: the loads themselves warm Kafka's JVM."""

    def book(self, sent: int, confirmed: int) -> None:
        self.sent += sent
        self.confirmed += confirmed

    async def settle(self) -> Verdict:
        """Until the broker tells as many messages as were confirmed, or no more come."""
        waiting = Patience(_SETTLE_S)
        while (stored := await self._stored()) < self.confirmed and not waiting.over:
            waiting.observe(stored)
            await asyncio.sleep(_POLL_S)
        return compare_totals(sent=self.sent, confirmed=self.confirmed, counted=stored)

    async def batched(self) -> None:
        return None

    async def holding(self) -> Holding:
        return summed([await self._told()])

    async def _stored(self) -> int:
        told = await self._told()
        return told.messages if told.ever is None else told.ever

    async def _told(self) -> holdings.Holding:
        data = self.directory / "data" / self.broker.name
        return await holdings.read(self.setup.broker, self.broker.url, TOPIC, data)


@asynccontextmanager
async def peer_stage(setup: Setup, directory: Path) -> AsyncIterator[PeerStage]:
    """`setup` of another system, up, with its files in `directory`; raises SettingsError, MissingProgram, NotBuilt,
    PortTaken or PartFailed."""
    peer = PEERS[setup.system]
    check_asked(peer.title, peer.brokers, setup.broker, setup.durability)
    peer.check()
    balancer = None if setup.balancer == "none" else setup.balancer
    Topology(broker=setup.broker, balancer=balancer).check_programs()
    async with Stack(directory) as stack:
        server = SERVERS[setup.broker].make(stack.directory, durability=setup.durability)
        broker = await stack.start(server)
        async with connected(broker.url, setup.durability) as ours:
            await ours.ensure(TOPIC, [GROUP])
        replicas = [
            await stack.start(
                peer.part(
                    stack.directory,
                    broker_url=broker.url,
                    topic=TOPIC,
                    durability=setup.durability,
                    name=f"{peer.name}-{number}",
                )
            )
            for number in range(1, setup.replicas + 1)
        ]
        nginx = None
        if balancer is not None:
            ports = [replica.port for replica in replicas]
            nginx = await stack.start(parts.nginx(stack.directory, upstream_ports=ports, balancer=balancer))
        yield PeerStage(setup, peer, stack.directory, broker, replicas, nginx)
