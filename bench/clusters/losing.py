"""How a cluster loses its most important node, and gets it back.

A broker's nodes settle by themselves who leads. Redis' do not: what an operator does after its primary has gone is
done here, as docs/clusters.md tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bench.clusters import asking
from bench.clusters.asking import Asking, Unanswered, ask_redis, replication
from stack.clusters import Clustered, replica_of
from stack.member import Member
from stack.parts import Part
from stack.ports import HOST

ASKINGS: Final[dict[Clustered, Callable[[Sequence[Member]], Asking]]] = {
    "nats": asking.Nats,
    "kafka": asking.Kafka,
    "rabbit": asking.Rabbit,
}


class Losing(Protocol):
    """A cluster that nodes are taken from, one at a time."""

    asking: Asking

    async def lose(self, node: Member) -> None:
        """`node` is killed, and stays down."""

    async def bring_back(self, node: Member) -> None:
        """Start `node` again; returns once it answers."""


class BrokerNodes:
    def __init__(self, broker: Clustered, nodes: Sequence[Member]) -> None:
        self.asking = ASKINGS[broker](nodes)

    async def lose(self, node: Member) -> None:
        await node.kill()

    async def bring_back(self, node: Member) -> None:
        await node.start()


class StoreNodes:
    """`plain` are the nodes' parts as they would be as primaries."""

    def __init__(self, nodes: Sequence[Member], plain: Sequence[Part]) -> None:
        self.asking: Asking = asking.Redis(nodes)
        self._nodes = nodes
        self._plain = {part.name: part for part in plain}
        self._primary = nodes[0]

    async def lose(self, node: Member) -> None:
        """The replica that has most of what was written becomes the primary, the other one its replica."""
        await node.kill()
        offsets = {each.name: await _offset(each) for each in self._nodes if each is not node}
        self._primary = max((each for each in self._nodes if each is not node), key=lambda each: offsets[each.name])
        await ask_redis(self._primary, "REPLICAOF", "NO", "ONE")
        for each in self._nodes:
            if each not in (node, self._primary):
                await ask_redis(each, "REPLICAOF", HOST, str(self._primary.port))
        for each in self._nodes:
            each.part = self._part(each)

    async def bring_back(self, node: Member) -> None:
        """As a replica: two that say they are primaries are refused."""
        await node.start()

    def _part(self, node: Member) -> Part:
        """What `node` is to be when it is started again."""
        plain = self._plain[node.name]
        return plain if node is self._primary else replica_of(self._primary.part, plain)


async def _offset(node: Member) -> int:
    """How much of what was written it has."""
    info = await replication(node)
    if info["role"] != "slave":
        raise Unanswered(f"{node.name} is no replica")
    return int(info["slave_repl_offset"])
