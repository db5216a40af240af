"""A broker within one process: for the embedded service. Everything it holds ends with the process.

Real in all but durability: groups and fan-out, redelivery of what was not acknowledged, a bound in bytes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from brokers.base import Features, Message
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, MessageTooLarge


@dataclass(slots=True)
class _Stored:
    """One message and for how many groups it is still kept."""

    topic: str
    body: bytes
    groups_left: int


@dataclass(slots=True)
class _Group:
    waiting: deque[_Stored] = field(default_factory=deque)
    taken: OrderedDict[int, tuple[float, _Stored]] = field(default_factory=OrderedDict)
    """delivery number -> (redelivery time, message), earliest first."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def give_back(self, delivery: int) -> None:
        _, stored = self.taken.pop(delivery)
        self.waiting.appendleft(stored)
        self.arrived.set()

    def give_back_overdue(self, now: float) -> float | None:
        """Return what was taken and not acknowledged in time; the time when the next one falls due."""
        while self.taken:
            delivery, (due, _) = next(iter(self.taken.items()))
            if due > now:
                return due
            self.give_back(delivery)
        return None


class MemoryBroker:
    """The port, in memory.

    `max_bytes` bounds, for each topic, the bodies stored and not yet acknowledged by every group; `redeliver_after_s`
    is how long a member may be silent about a message.
    """

    def __init__(
        self, *, max_bytes: int = 64 * 2**20, max_message_bytes: int = 2**20, redeliver_after_s: float = 30.0
    ) -> None:
        self.features = Features(max_message_bytes=max_message_bytes, server=False)
        self._max_bytes = max_bytes
        self._redeliver_after_s = redeliver_after_s
        self._stored_bytes: defaultdict[str, int] = defaultdict(int)
        self._topics: dict[str, dict[str, _Group]] = {}
        self._closed = False

    @property
    def connected(self) -> bool:
        return not self._closed

    def unread(self, topic: str, group: str) -> int:
        """Messages that `group` has not acknowledged."""
        members = self._group(topic, group)
        return len(members.waiting) + len(members.taken)

    async def start(self) -> None:
        self._check_open()

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        self._check_open()
        existing = self._topics.setdefault(topic, {})
        for group in groups:
            existing.setdefault(group, _Group())

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        self._check_open()
        if len(body) > self.features.max_message_bytes:
            raise MessageTooLarge(f"{len(body)} bytes, at most {self.features.max_message_bytes}")
        groups = self._topics.get(topic)
        if not groups:
            raise BrokerError(f"topic {topic!r} has no groups: ensure() was not called")
        if self._stored_bytes[topic] + len(body) > self._max_bytes:
            raise BrokerFull(f"{self._max_bytes} bytes are waiting to be counted")
        self._stored_bytes[topic] += len(body)
        stored = _Stored(topic, body, len(groups))
        for group in groups.values():
            group.waiting.append(stored)
            group.arrived.set()

    async def subscribe(self, topic: str, group: str) -> MemorySubscription:
        self._check_open()
        return MemorySubscription(self, self._group(topic, group), self._redeliver_after_s)

    async def close(self) -> None:
        self._closed = True
        for group in itertools.chain.from_iterable(groups.values() for groups in self._topics.values()):
            group.arrived.set()

    def release(self, stored: _Stored) -> None:
        """One group is done with a message."""
        stored.groups_left -= 1
        if stored.groups_left == 0:
            self._stored_bytes[stored.topic] -= len(stored.body)

    def _group(self, topic: str, group: str) -> _Group:
        try:
            return self._topics[topic][group]
        except KeyError:
            raise BrokerError(f"no group {group!r} on topic {topic!r}: ensure() makes them") from None

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")


class MemorySubscription:
    """One member of a group."""

    _deliveries = itertools.count()

    def __init__(self, broker: MemoryBroker, group: _Group, redeliver_after_s: float) -> None:
        self._broker = broker
        self._group = group
        self._redeliver_after_s = redeliver_after_s
        self._mine: set[int] = set()
        self._closed = False

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        while True:
            if self._closed or not self._broker.connected:
                raise BrokerUnavailable("closed")
            now = clock()
            due = self._group.give_back_overdue(now)
            if self._group.waiting:
                return self._take(max_messages, max_bytes, now)
            if now >= deadline:
                return []
            self._group.arrived.clear()
            wait_s = (deadline if due is None else min(due, deadline)) - now
            try:
                await asyncio.wait_for(self._group.arrived.wait(), wait_s)
            except TimeoutError:
                continue

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if self._closed or not self._broker.connected:
            raise BrokerUnavailable("closed")
        for message in messages:
            if message.receipt in self._mine and message.receipt in self._group.taken:
                _, stored = self._group.taken.pop(message.receipt)
                self._broker.release(stored)
            self._mine.discard(message.receipt)

    async def extend(self, messages: Sequence[Message]) -> None:
        if self._closed or not self._broker.connected:
            raise BrokerUnavailable("closed")
        due = asyncio.get_running_loop().time() + self._redeliver_after_s
        for message in messages:
            if message.receipt in self._mine and message.receipt in self._group.taken:
                _, stored = self._group.taken.pop(message.receipt)
                self._group.taken[message.receipt] = due, stored

    async def close(self) -> None:
        self._closed = True
        for delivery in sorted(self._mine, reverse=True):
            if delivery in self._group.taken:
                self._group.give_back(delivery)
        self._mine.clear()
        self._group.arrived.set()

    def _take(self, max_messages: int, max_bytes: int, now: float) -> list[Message]:
        messages: list[Message] = []
        size_bytes = 0
        while self._group.waiting and len(messages) < max_messages and size_bytes < max_bytes:
            stored = self._group.waiting.popleft()
            delivery = next(self._deliveries)
            self._group.taken[delivery] = (now + self._redeliver_after_s, stored)
            self._mine.add(delivery)
            messages.append(Message(stored.body, delivery))
            size_bytes += len(stored.body)
        return messages
