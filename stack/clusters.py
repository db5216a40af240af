"""Clusters as local processes: several nodes of a broker that serve as one, and a store's Redis with replicas.

Each node is a part like any other, `NAME-1` and so on; the servers' own modules know how one is run.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from core.settings import Durability
from stack import parts
from stack.kafka import Node, kafka_node
from stack.parts import Part
from stack.ports import HOST, free_port
from stack.rabbit import epmd_part, rabbit_node

NODES: Final = 3

Clustered = Literal["nats", "kafka", "rabbit"]
"""Brokers that can be clusters."""

_NATS: Final = """\
server_name: {name}
cluster {{
  name: fanrate
  listen: {host}:{route}
  no_advertise: true
  routes: [{routes}]
}}
"""
_PROMPTLY: Final = ("--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0")
"""A primary else waits 5 s for further replicas before it serves one, and 10 s at its end for what they lack."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that serve as one, and parts that must run before the first of them."""

    nodes: Sequence[Part]
    before: Sequence[Part] = ()

    @property
    def url(self) -> str:
        """The address of all nodes: that of one, with the hosts of all."""
        first = self.nodes[0]
        return first.url.replace(first.address, ",".join(node.address for node in self.nodes))


class MakeCluster(Protocol):
    """Makes the parts of a cluster; raises MissingProgram."""

    def __call__(self, directory: Path, *, durability: Durability = "confirmed") -> Cluster: ...


def nats_cluster(directory: Path, *, name: str = "nats", durability: Durability = "confirmed") -> Cluster:
    """Three nats-servers, over which streams may have three copies."""
    routes = [free_port() for _ in range(NODES)]
    every_route = ", ".join(f'"nats://{HOST}:{route}"' for route in routes)
    nodes = []
    for number, route in enumerate(routes, 1):
        node = f"{name}-{number}"
        further = _NATS.format(name=node, host=HOST, route=route, routes=every_route)
        nodes.append(parts.nats(directory, name=node, durability=durability, further=further))
    return Cluster(nodes)


def kafka_cluster(directory: Path, *, name: str = "kafka", durability: Durability = "confirmed") -> Cluster:
    """Three nodes, each both broker and controller; what is written to two of them is confirmed."""
    nodes = [Node(number) for number in range(1, NODES + 1)]
    return Cluster([kafka_node(directory, f"{name}-{node.number}", node, nodes, durability) for node in nodes])


def rabbit_cluster(directory: Path, *, name: str = "rabbit", durability: Durability = "confirmed") -> Cluster:
    """Three nodes that find each other by one epmd, and stop taking messages where they are the minority."""
    epmd = epmd_part(directory, "epmd")
    cookie = secrets.token_hex(16)
    ports = {f"{name}-{number}": free_port() for number in range(1, NODES + 1)}
    return Cluster([rabbit_node(directory, node, ports, epmd, cookie) for node in ports], before=[epmd])


def replicated(nodes: Sequence[Part]) -> Cluster:
    """The store's Redis, the first of `redis_nodes`, and the others as replicas of it."""
    first, *others = nodes
    return Cluster([first, *(replica_of(first, node) for node in others)])


def redis_nodes(directory: Path, *, name: str = "redis", durability: Durability = "confirmed") -> list[Part]:
    """Three that may each be the primary.

    No `min-replicas-to-write`: it goes by who was there within the last ten seconds, whereas WAIT, which follows each
    count, proves that this very count has reached the replicas.
    """
    nodes = [parts.redis(directory, name=f"{name}-{number}", durability=durability) for number in range(1, NODES + 1)]
    return [replace(node, argv=[*node.argv, *_PROMPTLY]) for node in nodes]


def replica_of(primary: Part, node: Part) -> Part:
    """`node`, as a replica of `primary` from its start."""
    return replace(node, argv=[*node.argv, "--replicaof", HOST, str(primary.port)])


CLUSTERS: Final[dict[Clustered, MakeCluster]] = {
    "nats": nats_cluster,
    "kafka": kafka_cluster,
    "rabbit": rabbit_cluster,
}
