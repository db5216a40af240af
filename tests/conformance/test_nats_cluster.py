"""NATS JetStream as a cluster of three, of which the node that leads is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.clusters import asking
from bench.clusters.asking import GROUPS, TOPIC
from brokers.base import Message, Subscription
from brokers.nats import COPIES, NatsBroker
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerUnavailable
from core.lifecycle import Deadline
from core.settings import Durability
from stack.clusters import nats_cluster
from stack.member import Member
from stack.supervisor import Stack
from tests.servers import needs

FORMED_S = 30.0
ELECTED_S = 40.0


@dataclass(frozen=True, slots=True)
class Nodes:
    members: list[Member]
    url: str

    @asynccontextmanager
    async def broker(self, durability: Durability = "confirmed") -> AsyncIterator[NatsBroker]:
        broker = NatsBroker(Endpoint.of(self.url), name="test", durability=durability, max_topic_bytes=2**20)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.close()


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """Started together, and formed when they are asked."""
    needs("nats-server")
    cluster = nats_cluster(tmp_path)
    async with Stack(tmp_path) as stack:
        members = [await stack.start(part, wait=False) for part in cluster.nodes]
        for member in members:
            await member.wait_ready()
        yield Nodes(members, cluster.url)


async def ensured(broker: NatsBroker, topic: str, group: str) -> None:
    """While the cluster forms that is not ready yet, and nothing else."""
    deadline = Deadline(FORMED_S)
    while True:
        try:
            return await broker.ensure(topic, [group])
        except BrokerUnavailable:
            assert deadline.left_s
            await asyncio.sleep(0.05)


async def confirmed(broker: NatsBroker, body: bytes) -> None:
    deadline = Deadline(ELECTED_S)
    while True:
        try:
            return await broker.publish(TOPIC, body, 1.0)
        except BrokerError:
            assert deadline.left_s
            await asyncio.sleep(0.05)


async def read_all(subscription: Subscription, wanted: set[bytes]) -> None:
    found: set[bytes] = set()
    deadline = Deadline(ELECTED_S)
    while found < wanted:
        assert deadline.left_s, f"missing {sorted(wanted - found)}"
        messages: list[Message] = []
        with suppress(BrokerUnavailable):
            messages = await subscription.fetch(100, 2**20, 1.0)
            await subscription.acknowledge(messages)
        found |= {message.body for message in messages}
    assert found == wanted


async def test_a_topic_has_three_copies_and_outlives_the_node_that_leads(nodes: Nodes) -> None:
    watch = asking.Nats(nodes.members)
    async with nodes.broker() as broker:
        for topic, group in GROUPS.items():
            await ensured(broker, topic, group)
        deadline = Deadline(FORMED_S)
        while trouble := await watch.trouble():  # names what has not all copies
            assert deadline.left_s, trouble
            await asyncio.sleep(0.05)
        bodies = {b"%d" % number for number in range(20)}
        for body in sorted(bodies)[:10]:
            await confirmed(broker, body)
        await (await watch.leader()).kill()
        for body in sorted(bodies)[10:]:
            await confirmed(broker, body)
        reader = await broker.subscribe(TOPIC, GROUPS[TOPIC])
        await read_all(reader, bodies)


async def test_a_stream_with_fewer_copies_is_refused_with_the_way_out(nodes: Nodes) -> None:
    async with nodes.broker() as broker, nodes.broker("relaxed") as relaxed:
        await ensured(broker, TOPIC, "readers")
        config = (await broker._request(f"STREAM.INFO.{TOPIC}")).config
        assert config["num_replicas"] == COPIES
        await broker._request(f"STREAM.UPDATE.{TOPIC}", {**config, "num_replicas": 1})
        with pytest.raises(BrokerError, match=r"num_replicas=1 could lose .*: nats stream edit rates --replicas 3"):
            await broker.ensure(TOPIC, ["readers"])
        await ensured(relaxed, TOPIC, "readers")
        await broker._request(f"STREAM.UPDATE.{TOPIC}", {**config, "num_replicas": COPIES})
        await ensured(broker, TOPIC, "readers")
