"""What the servers of a cluster say of themselves: who leads, and what is missing until all copies are in sync.

`trouble` is for people, and empty when nothing is missing. All of it raises Unanswered.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import nats
import redis.asyncio
from nats.errors import Error as NatsError

from brokers.kafka_link import connect
from brokers.kafka_wire import MetadataRequest
from core import counting, letters
from core.doors import Door
from core.endpoints import Endpoint
from core.errors import BrokerError, FanrateError
from stack.clusters import NODES
from stack.kafka import kafka_jars
from stack.member import Member
from stack.programs import find
from stack.rabbit import rabbitmqctl

TOPIC: Final = "rates"
LETTERS: Final = letters.dead_topic(TOPIC)
GROUPS: Final = {TOPIC: counting.GROUP, LETTERS: letters.GROUP}

ANSWER_S: Final = 3.0
MOST_BEHIND: Final = 1000
"""Of a queue under load; its members are asked one after the other."""
TOOL_S: Final = 20.0
"""A tool of Kafka or RabbitMQ starts a virtual machine of its own."""


class Unanswered(FanrateError):
    """The servers could not be asked, or do not know for now."""


class Asking(Protocol):
    """How one kind of cluster is asked."""

    leads: str
    """What the leader leads."""

    async def leader(self) -> Member:
        """The node that is missed most."""

    async def trouble(self) -> str: ...


class Nats:
    leads = f"the stream {TOPIC}"

    def __init__(self, nodes: Sequence[Member]) -> None:
        self._nodes = nodes

    async def leader(self) -> Member:
        (info,) = await self._ask([f"STREAM.INFO.{TOPIC}"])
        return _named(self._nodes, info.get("cluster", {}).get("leader", ""))

    async def trouble(self) -> str:
        names = [f"STREAM.INFO.{topic}" for topic in GROUPS]
        names += [f"CONSUMER.INFO.{topic}.{group}" for topic, group in GROUPS.items()]
        answers = await self._ask(names)
        return "; ".join(
            f"{name}: {said}" for name, info in zip(names, answers, strict=True) if (said := _copies(info))
        )

    async def _ask(self, names: Sequence[str]) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(ANSWER_S):
                client = await nats.connect(_running(self._nodes).url, allow_reconnect=False, connect_timeout=2)
                try:
                    answers = [await client.request(f"$JS.API.{name}", timeout=ANSWER_S) for name in names]
                finally:
                    await client.close()
        except (NatsError, OSError, TimeoutError) as exc:
            raise Unanswered(f"JetStream: {exc!r}") from exc
        return [msgspec.json.decode(answer.data) for answer in answers]


def _copies(info: dict[str, Any]) -> str:
    """What is wrong with the copies of one stream or consumer."""
    cluster = info.get("cluster", {})
    others = cluster.get("replicas") or []
    if not cluster.get("leader"):
        return "no leader"
    if len(others) != NODES - 1:
        return f"{1 + len(others)} copies"
    behind = [each["name"] for each in others if each.get("offline") or not each.get("current")]
    return f"{', '.join(behind)} behind" if behind else ""


class Kafka:
    leads = "the controllers and a third of the partitions"

    def __init__(self, nodes: Sequence[Member]) -> None:
        self._nodes = nodes

    async def leader(self) -> Member:
        """The active controller, which leads partitions too. Only the tool can tell it: to clients any node is one."""
        command = [str(find("java")), "-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", str(kafka_jars() / "*")]
        command += ["org.apache.kafka.tools.MetadataQuorumCommand"]
        command += ["--bootstrap-server", _running(self._nodes).address, "describe", "--status"]
        for line in (await _told(command, {})).splitlines():
            if line.startswith("LeaderId:"):
                return self._nodes[int(line.split()[1]) - 1]
        raise Unanswered("the controllers have no leader")

    async def trouble(self) -> str:
        names = [TOPIC, LETTERS, "__consumer_offsets"]
        try:
            node = Endpoint.of(_running(self._nodes).url)
            link = await connect(Door(node), node.hosts[0], "cluster-check")
            try:
                answer = await link.ask(MetadataRequest(names))
            finally:
                link.abort()
        except BrokerError as exc:
            raise Unanswered(f"Kafka: {exc}") from exc
        if len(answer.brokers) != NODES:
            return f"{len(answer.brokers)} nodes"
        behind = {
            f"{topic}: {len(in_sync)} of {len(replicas)} in sync, leader {leader}"
            for _, topic, _, _, _, partitions, _, _ in answer.topics
            for _, _, leader, _, replicas, in_sync, _, _ in partitions
            if leader < 0 or len(in_sync) != NODES
        }
        missing = {f"{topic}: error {code}" for code, topic, *_ in answer.topics if code}
        return "; ".join(sorted(behind | missing))


class Rabbit:
    leads = f"the queue {TOPIC}.{GROUPS[TOPIC]}"

    def __init__(self, nodes: Sequence[Member]) -> None:
        self._nodes = nodes

    async def leader(self) -> Member:
        for member in await self._members(f"{TOPIC}.{GROUPS[TOPIC]}"):
            if member["Raft State"] == "leader":
                return _named(self._nodes, member["Node Name"].partition("@")[0])
        raise Unanswered(f"the queue {TOPIC}.{GROUPS[TOPIC]} has no leader")

    async def trouble(self) -> str:
        queues = [f"{topic}.{group}" for topic, group in GROUPS.items()]
        return "; ".join([f"{queue}: {said}" for queue in queues if (said := _lacks(await self._members(queue)))])

    async def _members(self, queue: str) -> list[dict[str, Any]]:
        node = _running(self._nodes)
        kept = ("HOME", "ERL_EPMD_PORT", "ERL_EPMD_ADDRESS", "RABBITMQ_CONF_ENV_FILE")
        command = [str(rabbitmqctl().with_name("rabbitmq-queues")), "-n", f"{node.name}@localhost", "--quiet"]
        command += ["--formatter", "json", "quorum_status", queue]
        told = await _told(command, {name: node.part.env[name] for name in kept})
        try:
            members: list[dict[str, Any]] = msgspec.json.decode(told)
        except msgspec.DecodeError as exc:
            raise Unanswered(f"rabbitmq-queues: {told[-200:]}") from exc
        return members


def _lacks(members: Sequence[dict[str, Any]]) -> str:
    """What is wrong with the members of one queue."""
    states = sorted(str(member["Raft State"]) for member in members)
    if states != ["follower"] * (NODES - 1) + ["leader"]:
        return ", ".join(states)
    at = [member["Commit Index"] for member in members]
    return "" if max(at) - min(at) <= MOST_BEHIND else f"a member is {max(at) - min(at)} entries behind"


class Redis:
    leads = "the store"

    def __init__(self, nodes: Sequence[Member]) -> None:
        self._nodes = nodes

    async def leader(self) -> Member:
        for node in self._nodes:
            if node.running and (await replication(node))["role"] == "master":
                return node
        raise Unanswered("no Redis is the primary")

    async def trouble(self) -> str:
        info = await replication(await self.leader())
        online = [each for name, each in info.items() if _is_replica(name) and each["state"] == "online"]
        if len(online) < NODES - 1:
            return f"{len(online)} replicas online"
        persistence = [await ask_redis(node, "INFO", "persistence") for node in self._nodes]
        return "a replica writes its first file" if any(told["aof_rewrite_in_progress"] for told in persistence) else ""


def _is_replica(name: str) -> bool:
    return name.startswith("slave") and name.removeprefix("slave").isdigit()


async def replication(node: Member) -> dict[str, Any]:
    """`INFO replication` of a Redis."""
    told: dict[str, Any] = await ask_redis(node, "INFO", "replication")
    return told


async def ask_redis(node: Member, *command: str) -> Any:
    try:
        async with asyncio.timeout(ANSWER_S), redis.asyncio.Redis.from_url(node.url) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]
    except (redis.RedisError, OSError, TimeoutError) as exc:
        raise Unanswered(f"{node.name}: {exc!r}") from exc


def _running(nodes: Sequence[Member]) -> Member:
    """One that can be asked."""
    for node in nodes:
        if node.ready:
            return node
    raise Unanswered("no node is up")


def _named(nodes: Sequence[Member], name: str) -> Member:
    for node in nodes:
        if node.name == name:
            return node
    raise Unanswered(f"{name or 'nobody'} leads")


async def _told(command: Sequence[str], env: dict[str, str]) -> str:
    """What a program prints."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=TOOL_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    name = Path(command[0]).name
    try:
        done = await asyncio.to_thread(run)
    except subprocess.TimeoutExpired as exc:
        raise Unanswered(f"{name} has not answered within {TOOL_S:g} s") from exc
    if done.returncode:
        raise Unanswered(f"{name}: {(done.stderr or done.stdout)[-300:]}")
    return done.stdout
