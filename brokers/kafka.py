"""Kafka: one topic of Kafka per topic, one group of Kafka per topic and group.

Confirmed means written by all replicas that are in sync. Nothing is refused for want of room: a topic keeps all
messages of the last eight days, read or not.

The connections, the producer and the members of groups are our own, over aiokafka's protocol and record batches. What
aiokafka does beyond that (send again, buffer while disconnected, wait without end) the port does not allow.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from brokers.base import Features
from brokers.kafka_cluster import Cluster, Topic
from brokers.kafka_link import Link
from brokers.kafka_pull import KafkaSubscription
from brokers.kafka_topics import MAX_MESSAGE_BYTES, ensure_group, ensure_topic, group_id
from brokers.kafka_wire import Code, code_name
from core.doors import Door
from core.endpoints import Endpoint
from core.errors import BrokerUnavailable, MessageTooLarge, PublishTimeout
from core.settings import Durability

DEFAULT_PORT: Final = 9092

_ENSURE_S = 10.0
_ACKS: Final[dict[Durability, int]] = {"relaxed": 1, "confirmed": -1, "fsync": -1}


class KafkaBroker:
    """The port, on Kafka.

    `redeliver_after_s` is how long a member may be silent about a message. `max_topic_bytes` is not used: Kafka would
    not refuse what is beyond it but delete what is oldest.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        durability: Durability = "confirmed",
        redeliver_after_s: float = 10.0,
        max_topic_bytes: int | None = None,
    ) -> None:
        door = Door(endpoint.with_port(DEFAULT_PORT).plain(user=False))
        self._durability = durability
        self._redeliver_after_s = redeliver_after_s
        self._features = Features(max_message_bytes=MAX_MESSAGE_BYTES, refuses_when_full=False, replays=True)
        self._cluster = Cluster(door, name)
        self._keeper: asyncio.Task[None] | None = None
        self._turns: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(random.randrange(2**16)))  # noqa: S311
        self._subscriptions: set[KafkaSubscription] = set()
        self._member_ids: defaultdict[str, list[str]] = defaultdict(list)
        self._closed = False

    @property
    def features(self) -> Features:
        return self._features

    @property
    def connected(self) -> bool:
        return not self._closed and self._cluster.connected

    async def start(self) -> None:
        self._check_open()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._cluster.run(), name=f"kafka {self._cluster}")

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        self._check_open()
        try:
            async with asyncio.timeout(_ENSURE_S):
                found, most_bytes = await ensure_topic(self._cluster, topic, self._durability)
                for group in groups:
                    await ensure_group(self._cluster, found, group)
        except TimeoutError as exc:
            raise BrokerUnavailable(f"not made within {_ENSURE_S:g} s") from exc
        self._features = replace(self._features, max_message_bytes=min(self._features.max_message_bytes, most_bytes))

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        """One request each, to the partitions in turn, and sent once: so that none is stored twice takes no producer's
        id."""
        self._check_open()
        if len(body) > self._features.max_message_bytes:
            raise MessageTooLarge(f"{len(body)} bytes, at most {self._features.max_message_bytes}")
        try:
            async with asyncio.timeout(timeout_s):
                partition, link = self._route(topic, self._cluster.known(topic) or await self._cluster.topic(topic))
                code = await link.produce(topic, partition, body, _ACKS[self._durability], timeout_s)
        except TimeoutError as exc:
            raise PublishTimeout(f"no confirm within {timeout_s} s") from exc
        if code == Code.NONE:
            return
        self._cluster.doubt()
        if code in (Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE):
            raise MessageTooLarge(code_name(code))
        if code == Code.REQUEST_TIMED_OUT:
            raise PublishTimeout("the replicas did not confirm in time")
        raise BrokerUnavailable(f"{topic}, partition {partition}: {code_name(code)}")

    async def subscribe(self, topic: str, group: str) -> KafkaSubscription:
        self._check_open()
        subscription = KafkaSubscription(
            topic,
            group,
            cluster=self._cluster,
            member_ids=self._member_ids[group_id(topic, group)],
            on_close=self._subscriptions.discard,
            redeliver_after_s=self._redeliver_after_s,
        )
        self._subscriptions.add(subscription)
        try:
            await subscription.start()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        self._cluster.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    def _route(self, topic: str, found: Topic | None) -> tuple[int, Link]:
        """The next partition whose leader is connected."""
        if found is None:
            raise BrokerUnavailable(f"no topic {topic!r}: ensure() makes it")
        turn = self._turns[topic]
        for number in itertools.islice(turn, len(found.leaders)):
            partition = number % len(found.leaders)
            try:
                return partition, self._cluster.link_to(found.leaders[partition])
            except BrokerUnavailable:
                continue
        self._cluster.any_link()
        raise BrokerUnavailable(f"no partition of {topic!r} has a leader that is connected")

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")
