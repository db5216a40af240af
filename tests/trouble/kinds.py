"""The brokers that trouble is made for: each one's server, and what only its own client can do to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import aio_pika
import nats
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from brokers.base import Broker, Features
from core.counting import GROUP
from core.endpoints import Endpoint
from core.settings import Durability
from stack import parts
from stack.kafka import kafka
from stack.parts import Part
from stack.ports import HOST
from stack.rabbit import rabbit
from tests.conformance import kinds as conformance

_ERLANG = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"


@dataclass(frozen=True, slots=True)
class Way:
    """The way from clients through a proxy: it listens on `outer`. `inner` is for a server that tells its clients where
    it is: it listens there for the proxy, and tells who comes that way of `outer`."""

    outer: int
    inner: int


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of broker with a server."""

    conformance: conformance.Kind
    scheme: str
    programs: tuple[str, ...]
    make_part: Callable[[Path, Way], Part]
    delete_topic: Callable[[str, str], Awaitable[None]]
    """Of the server at a URL, with all it holds, as an operator would by mistake."""
    delete_group: Callable[[str, str, str], Awaitable[None]] | None = None
    """One group of a topic, with all it holds. None: the server has no group but those that somebody is a member of."""
    durability: Durability = "confirmed"
    listens_to_proxy: bool = False
    """Whether its server listens on `Way.inner`; otherwise a proxy forwards to where all clients go."""
    flows_again_s: float = 10.0
    """How soon after the broker's return confirms must flow."""
    counts_again_s: float | None = None
    """How soon after confirms flow into a topic made anew they must be counted; None: within `flows_again_s`."""
    silent_s: float = 10.5
    """A consumer that was silent for so long has lost what it held to others."""

    @property
    def name(self) -> str:
        return self.conformance.name

    @property
    def features(self) -> Features:
        return self.broker(f"{self.scheme}://{HOST}:1", topic_bytes=2**20).features

    def broker(self, url: str, *, topic_bytes: int) -> Broker:
        """An adapter, not started; the topics that it makes hold `topic_bytes`."""
        make = self.conformance.make_broker
        return make(Endpoint.of(url), name="fanrate-trouble", redeliver_after_s=10.0, max_topic_bytes=topic_bytes)


def _nats(directory: Path, way: Way) -> Part:
    return parts.nats(directory)


async def _delete_stream(url: str, topic: str) -> None:
    client = await nats.connect(url)
    try:
        await client.jetstream().delete_stream(topic)
    finally:
        await client.close()


async def _delete_consumer(url: str, topic: str, group: str) -> None:
    client = await nats.connect(url)
    try:
        await client.jetstream().delete_consumer(topic, group)
    finally:
        await client.close()


def _nats_core(directory: Path, way: Way) -> Part:
    return parts.nats_core(directory)


async def _delete_nothing(url: str, topic: str) -> None:
    """Such a server keeps no topic."""


def _redis(directory: Path, way: Way) -> Part:
    return parts.redis_streams(directory)


async def _delete_key(url: str, topic: str) -> None:
    client = Redis.from_url(url)
    try:
        assert await client.delete(f"fanrate:stream:{topic}") == 1
    finally:
        await client.aclose()


async def _delete_stream_group(url: str, topic: str, group: str) -> None:
    client = Redis.from_url(url)
    try:
        assert await client.xgroup_destroy(f"fanrate:stream:{topic}", group) == 1
    finally:
        await client.aclose()


def _rabbit(directory: Path, way: Way) -> Part:
    """It closes the channel of a consumer that was silent for longer than adapters let it be, and looks each second."""
    part = rabbit(directory)
    arguments = f"{part.env[_ERLANG]} -rabbit consumer_timeout 6000 -rabbit channel_tick_interval 1000"
    return replace(part, env={**part.env, _ERLANG: arguments})


async def _delete_queue(url: str, topic: str, group: str = GROUP) -> None:
    connection = await aio_pika.connect(url)
    try:
        channel = await connection.channel()
        await channel.queue_delete(f"{topic}.{group}")
    finally:
        await connection.close()


def _kafka(directory: Path, way: Way) -> Part:
    part = kafka(directory)
    ((path, text),) = part.files.items()
    for setting, more in (
        ("listeners", f"PROXIED://{HOST}:{way.inner}"),
        ("advertised.listeners", f"PROXIED://{HOST}:{way.outer}"),
        ("listener.security.protocol.map", "PROXIED:PLAINTEXT"),
    ):
        text, found = re.subn(rf"(?m)^({re.escape(setting)}=.*)$", rf"\1,{more}", text)
        assert found == 1, setting
    return replace(part, files={path: text})


async def _delete_kafka_topic(url: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


NATS = Kind(conformance.NATS, "nats", ("nats-server",), _nats, _delete_stream, _delete_consumer, flows_again_s=5.0)

REDIS = Kind(conformance.REDIS, "redis", ("redis-server",), _redis, _delete_key, _delete_stream_group)

RABBIT = Kind(
    conformance.RABBIT,
    "amqp",
    ("rabbitmq-server",),
    _rabbit,
    _delete_queue,
    _delete_queue,
    counts_again_s=15.0,  # a consumer that is told nothing is silent for 6 s, and judges by numbers up to 5 s old
    silent_s=7.5,
)

KAFKA = Kind(
    conformance.KAFKA, "kafka", ("java", "kafka"), _kafka, _delete_kafka_topic, listens_to_proxy=True, silent_s=8.0
)

NATS_CORE = Kind(
    conformance.NATS_CORE, "nats+core", ("nats-server",), _nats_core, _delete_nothing, durability="relaxed"
)

KINDS = [NATS, KAFKA, RABBIT, REDIS, NATS_CORE]
