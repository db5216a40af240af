"""Fetches one member's partitions, each from the node that leads it, on connections of the member's own: a node holds a
fetch back until there is something to answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog

from brokers.kafka_cluster import PAUSE_S, RETRY_S, Cluster, Topic
from brokers.kafka_holdings import Holdings, Partition
from brokers.kafka_link import ANSWER_S, Link
from brokers.kafka_wire import Code, FetchRequest_v4, code_name, decode, records
from core.errors import BrokerUnavailable

log = structlog.get_logger()

LEAST_FETCH_BYTES: Final = 2**16
MOST_FETCH_BYTES: Final = 2**22
"""Of one answer, whatever `fetch` asks for; a single message above it comes all the same."""
_LONG_POLL_MS = 500


class Reader:
    """`changed` is called when there is something new: messages, or trouble that `check` tells."""

    def __init__(self, cluster: Cluster, topic: Topic, holdings: Holdings, changed: Callable[[], None]) -> None:
        self._cluster = cluster
        self._topic = topic
        self._holdings = holdings
        self._changed = changed
        self._links: dict[int, Link] = {}
        self._asked: dict[Link, float] = {}
        """The connections that a fetch is under way on, and since when."""
        self._out_of_range: set[Partition] = set()
        self._trouble: BrokerUnavailable | None = None
        self._resumes_at = 0.0
        """After an answer that says "not now"."""
        self._connects_at = 0.0
        """After a node could not be reached."""

    def check(self) -> None:
        """Raise what an answer showed to be beyond repair here."""
        if self._trouble is not None:
            raise BrokerUnavailable(str(self._trouble)) from self._trouble

    def ask(self, max_bytes: int) -> None:
        """Ask every node for more that is not asked already."""
        now = asyncio.get_running_loop().time()
        if now < self._resumes_at:
            return
        most_bytes = min(max(max_bytes, LEAST_FETCH_BYTES), MOST_FETCH_BYTES)
        by_node: dict[int, list[Partition]] = {}
        for partition in self._holdings.readable():
            if partition not in self._out_of_range:
                by_node.setdefault(self._leader(partition), []).append(partition)
        for node, partitions in by_node.items():
            link = self._links.get(node)
            if link is not None and link.up and link not in self._asked:
                self._ask(link, partitions, most_bytes, now)

    async def mend(self) -> None:
        """Connect to nodes that now lead something, give up those that do not answer, and find where to go on in
        partitions that no longer hold what comes next."""
        now = asyncio.get_running_loop().time()
        for link, asked_at in list(self._asked.items()):
            if now - asked_at > _LONG_POLL_MS / 1000 + ANSWER_S:
                log.warning("fetch_stuck", topic=self._topic.name)
                link.abort()
        if now >= self._connects_at:
            await self._connect(now)
        if self._out_of_range:
            await self._begin_anew(
                [partition for partition in self._out_of_range if partition.alive and not partition.draining]
            )

    def close(self) -> None:
        for link in self._links.values():
            link.abort()

    async def _connect(self, now: float) -> None:
        """To the nodes that lead something; raises BrokerUnavailable if none of them can be reached. One that cannot be
        holds up only what it leads."""
        nodes = {self._leader(partition) for partition in self._holdings.readable()}
        failed: dict[int, BrokerUnavailable] = {}
        for node in nodes:
            present = self._links.get(node)
            if present is not None and present.up:
                continue
            try:
                self._links[node] = await self._cluster.own_link(node)
            except BrokerUnavailable as exc:
                failed[node] = exc
                continue
            self._links[node].lost = self._changed
            self._changed()
        if failed:
            self._cluster.doubt()
            self._connects_at = now + RETRY_S
            if failed.keys() == nodes:
                raise next(iter(failed.values()))

    def _leader(self, partition: Partition) -> int:
        topic = self._cluster.known(self._topic.name) or self._topic
        return topic.leaders[partition.number] if partition.number < len(topic.leaders) else -1

    def _ask(self, link: Link, partitions: Sequence[Partition], most_bytes: int, now: float) -> None:
        """A node fills its answer in the order asked: none of the partitions may always come last."""
        first = random.randrange(len(partitions))  # noqa: S311
        asked = {each.number: (each, each.next_offset) for each in (*partitions[first:], *partitions[:first])}
        wanted = [(number, offset, most_bytes) for number, (_, offset) in asked.items()]
        request = FetchRequest_v4(-1, _LONG_POLL_MS, 1, most_bytes, 0, [(self._topic.name, wanted)])
        try:
            answer = link.send(request)
        except BrokerUnavailable:
            return
        self._asked[link] = now
        answer.add_done_callback(partial(self._on_answer, link, request, asked))

    def _on_answer(
        self,
        link: Link,
        request: Any,
        asked: Mapping[int, tuple[Partition, int]],
        answer: asyncio.Future[bytes],
    ) -> None:
        self._asked.pop(link, None)
        if not answer.cancelled() and answer.exception() is None:
            try:
                for _, partitions in decode(request, answer.result()).topics:
                    for number, code, _, _, _, message_set in partitions:
                        self._receive(*asked[number], code, message_set)
            except Exception as exc:  # also whatever aiokafka raises at what it cannot read
                self._trouble = exc if isinstance(exc, BrokerUnavailable) else BrokerUnavailable(repr(exc))
        self._changed()

    def _receive(self, partition: Partition, offset: int, code: int, message_set: bytes | None) -> None:
        """An answer to what was asked before the partition was lost, drained or begun anew is void."""
        if not partition.alive or partition.draining or partition.next_offset != offset:
            return
        if code == Code.NONE:
            if message_set:
                self._holdings.receive(partition, records(message_set))
            return
        self._cluster.doubt()
        if code == Code.UNKNOWN_TOPIC:
            self._trouble = BrokerUnavailable(f"topic {self._topic.name!r} is gone")
        elif code == Code.OFFSET_OUT_OF_RANGE:
            self._out_of_range.add(partition)
        else:
            log.debug("fetch_refused", partition=partition.number, error=code_name(code))
        loop = asyncio.get_running_loop()
        self._resumes_at = loop.time() + PAUSE_S
        loop.call_later(PAUSE_S, self._changed)

    async def _begin_anew(self, partitions: Sequence[Partition]) -> None:
        """What is gone was kept for longer than the horizon, or the server lost it; go on with what there is."""
        topic = self._cluster.known(self._topic.name) or self._topic
        offsets = await self._cluster.earliest(topic, [partition.number for partition in partitions])
        for partition in partitions:
            number, expected, earliest = partition.number, partition.next_offset, offsets[partition.number]
            where = {"topic": topic.name, "partition": number, "expected": expected, "earliest": earliest}
            if earliest < expected:
                log.warning("confirmed_messages_lost_by_server", **where)
                self._holdings.begin_again(partition, earliest)
            else:
                log.error("messages_gone", **where)
                partition.begin_at(earliest)
        self._out_of_range.clear()
        self._changed()
