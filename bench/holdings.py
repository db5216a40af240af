"""What a broker itself says that it holds of one topic, or, where it does not say, what lies on its disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aio_pika
import nats
from aio_pika.exceptions import AMQPError
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError  # type: ignore[import-untyped]
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from brokers.kafka_topics import group_id
from brokers.redis_streams import keys
from core.errors import FanrateError
from stack.topology import Broker

GROUP: Final = "counters"
ANSWERS_S: Final = 20.0

_ERRORS: Final = (OSError, AMQPError, KafkaError, NatsError, RedisError)
_BLOCK_BYTES: Final = 512
"""The unit of `st_blocks`, whatever the file system's own is."""


class UnreadableBroker(FanrateError):
    """It does not say what it holds."""


@dataclass(frozen=True, slots=True)
class Holding:
    """`messages` are stored and not yet removed, `depth` of them not yet acknowledged by the group `counters`; `ever`
    were stored since the topic was made. None is what the broker does not tell. `bytes` are the topic's, or all of the
    broker's on disk."""

    messages: int
    ever: int | None
    depth: int | None
    bytes: int


def stores(broker: Broker) -> bool:
    """Whether it stores what could be counted."""
    return broker in _READERS


async def read(broker: Broker, url: str, topic: str, data: Path) -> Holding:
    """What `topic` holds on the `broker` at `url`, which keeps its files in `data`. Raises UnreadableBroker."""
    reader = _READERS.get(broker)
    if reader is None:
        raise UnreadableBroker(f"{broker} stores nothing that could be counted")
    try:
        async with asyncio.timeout(ANSWERS_S):
            return await reader(url, topic, data)
    except TimeoutError as exc:
        raise UnreadableBroker(f"{broker} does not say within {ANSWERS_S:g} s what topic {topic!r} holds") from exc
    except _ERRORS as exc:
        raise UnreadableBroker(f"{broker} does not say what topic {topic!r} holds: {exc!r}") from exc


async def _nats(url: str, topic: str, _: Path) -> Holding:
    client = await nats.connect(url, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0.1)
    async with _closing(client.close):
        stream = client.jetstream()
        state = (await stream.stream_info(topic)).state
        depth = None
        with suppress(NotFoundError):
            group = await stream.consumer_info(topic, GROUP)
            depth = (group.num_pending or 0) + (group.num_ack_pending or 0)
    return Holding(state.messages, state.last_seq, depth, state.bytes)


async def _kafka(url: str, topic: str, data: Path) -> Holding:
    servers = urlsplit(url).netloc.split(",")
    asking, offsets = AIOKafkaAdminClient(bootstrap_servers=servers), AIOKafkaConsumer(bootstrap_servers=servers)
    async with _closing(asking.close), _closing(offsets.stop):
        await asking.start()
        await offsets.start()
        [told] = await asking.describe_topics([topic])
        partitions = [TopicPartition(topic, each["partition"]) for each in told["partitions"]]
        if not partitions:
            raise UnknownTopicOrPartitionError
        first, end = await offsets.beginning_offsets(partitions), await offsets.end_offsets(partitions)
        done = await asking.list_consumer_group_offsets(group_id(topic, GROUP), partitions=partitions)
    ever = sum(end.values())
    read = [done[each].offset for each in partitions if each in done and done[each].offset >= 0]
    depth = ever - sum(read) if len(read) == len(partitions) else None
    return Holding(ever - sum(first.values()), ever, depth, on_disk_bytes(data))


@asynccontextmanager
async def _closing(close: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await close()


async def _rabbit(url: str, topic: str, data: Path) -> Holding:
    """Only what waits in the group's queue: what is with its members is not told to clients."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"{topic}.{GROUP}", passive=True)
        waiting = queue.declaration_result.message_count or 0
    return Holding(waiting, None, waiting, on_disk_bytes(data))


async def _redis(url: str, topic: str, _: Path) -> Holding:
    stream = keys(topic)[0]
    async with Redis.from_url(url) as client:
        told = await client.xinfo_stream(stream)
        groups = {group["name"]: group for group in await client.xinfo_groups(stream)}
        size_bytes = await client.memory_usage(stream, samples=0)
    depth = None
    if (group := groups.get(GROUP.encode())) and group["lag"] is not None:
        depth = group["lag"] + group["pending"]
    return Holding(told["length"], told["entries-added"], depth, size_bytes or 0)


_READERS: Final[dict[Broker, Callable[[str, str, Path], Awaitable[Holding]]]] = {
    "nats": _nats,
    "kafka": _kafka,
    "rabbit": _rabbit,
    "redis": _redis,
}


def on_disk_bytes(folder: Path) -> int:
    """What the files in it take up; a file that was laid out ahead takes less than its length, and one that goes
    meanwhile nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found = path.lstat()
            total += found.st_blocks * _BLOCK_BYTES
    return total
