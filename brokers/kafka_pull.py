"""A member of a consumer group on Kafka.

One task is the member: it joins, tells that it lives, commits what was acknowledged, and joins again when the group
changes. Nothing is fetched ahead of `fetch`, so that under load each answer holds all that came since the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from brokers.base import Message
from brokers.kafka_cluster import RETRY_S, Cluster, Topic
from brokers.kafka_holdings import Holdings
from brokers.kafka_member import CLOSE_TIMEOUT_S, Evicted, Member
from brokers.kafka_reader import Reader
from brokers.kafka_share import Share
from brokers.kafka_topics import committed, coordinating, group_id
from core.errors import BrokerError, BrokerUnavailable

log = structlog.get_logger()

HEARTBEAT_S = 0.1
"""Only by this a member learns that its group changes: another one that comes or goes waits so long for it."""

_JOIN_S = 3.0
"""How long `subscribe` waits for a share; it comes later where another member died and is not given up yet."""
_LEAST_SILENCE_S = 1.0
"""A shorter redelivery time makes nobody leave the group sooner: leaving and coming back take their time too."""


class KafkaSubscription:
    """One member of a group. `member_ids` are of members of this process that could not say goodbye: one of them is
    taken over, so that the group need not wait until it is given up."""

    def __init__(
        self,
        topic: str,
        group: str,
        *,
        cluster: Cluster,
        member_ids: list[str],
        on_close: Callable[[KafkaSubscription], None],
        redeliver_after_s: float,
    ) -> None:
        self._topic = topic
        self._group = group
        self._cluster = cluster
        self._member_ids = member_ids
        self._member_id = member_ids.pop() if member_ids else ""
        self._on_close = on_close
        self._redeliver_after_s = redeliver_after_s
        self._holdings = Holdings()
        self._reader: Reader | None = None
        """There while what is held is the share of the group's present generation."""
        self._trouble: BrokerUnavailable | None = None
        """Why the member is in no group."""
        self._fetching = 0
        self._active_at = asyncio.get_running_loop().time()
        self._changed = asyncio.Event()
        """There is something for `fetch` to look at."""
        self._poked = asyncio.Event()
        """There is something for the member to do."""
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Join the group; raises BrokerError if `ensure` did not make it."""
        topic = await self._cluster.topic(self._topic)
        if topic is None or not await committed(self._cluster, topic, self._group):
            raise BrokerError(f"no group {self._group!r} on topic {self._topic!r}: ensure() makes them")
        self._cluster.watching.add(self._changed.set)
        self._task = asyncio.create_task(self._run(), name=f"member of {group_id(self._topic, self._group)}")
        with suppress(TimeoutError):
            async with asyncio.timeout(_JOIN_S):
                while self._reader is None:
                    self._check()
                    self._changed.clear()
                    await self._changed.wait()

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        self._fetching += 1
        try:
            while True:
                self._check()
                now = clock()
                if self._reader is not None:
                    self._holdings.expire(now)
                    messages = self._holdings.take(max_messages, max_bytes, now + self._redeliver_after_s)
                    if messages or now >= deadline:
                        return messages
                    self._reader.ask(max_bytes)
                elif now >= deadline:
                    return []
                else:
                    self._poked.set()
                await self._wait(deadline)
        finally:
            self._fetching -= 1
            self._active_at = clock()

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        self._check_connected()
        self._active_at = asyncio.get_running_loop().time()
        self._holdings.acknowledge(messages)
        self._poked.set()

    async def extend(self, messages: Sequence[Message]) -> None:
        self._check_connected()
        self._active_at = asyncio.get_running_loop().time()
        self._holdings.extend(messages, self._active_at + self._redeliver_after_s)

    async def close(self) -> None:
        self._closed = True
        self._changed.set()
        self._poked.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_TIMEOUT_S)
            self._task.cancel()
            await asyncio.wait({self._task})
        self._cluster.watching.discard(self._changed.set)
        self._on_close(self)

    def _check(self) -> None:
        self._check_connected()
        if self._trouble is not None:
            raise BrokerUnavailable(str(self._trouble)) from self._trouble
        if self._reader is not None:
            self._reader.check()

    def _check_connected(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")
        self._cluster.any_link()

    async def _wait(self, deadline: float) -> None:
        """Until something changed, a message is to be handed out again, or `deadline`."""
        due = self._holdings.due if self._reader is not None else None
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline if due is None else min(due, deadline)):
                await self._changed.wait()

    async def _run(self) -> None:
        """Be a member until closed, whatever happens meanwhile."""
        try:
            while not self._closed:
                try:
                    await self._belong()
                except Evicted as exc:
                    log.warning("evicted", topic=self._topic, group=self._group, error=str(exc))
                except Exception as exc:  # whatever aiokafka raises at what it cannot read, the next try may succeed
                    self._trouble = exc if isinstance(exc, BrokerUnavailable) else BrokerUnavailable(repr(exc))
                    self._changed.set()
                    await asyncio.sleep(RETRY_S)
        finally:
            if self._member_id:
                self._member_ids.append(self._member_id)
            self._changed.set()

    async def _belong(self) -> None:
        """Be a member on one connection to the coordinator. All that is held then is stale when that ends."""
        topic = await self._cluster.topic(self._topic)
        if topic is None or not await committed(self._cluster, topic, self._group):
            self._cluster.doubt()
            raise BrokerUnavailable(f"no topic {self._topic!r} or no group {self._group!r}: ensure() makes them")
        node = await coordinating(self._cluster, self._topic, self._group)
        link = await self._cluster.own_link(node)
        link.lost = self._poked.set
        member = Member(link, group_id(self._topic, self._group), topic, self._member_id)
        reader = Reader(self._cluster, topic, self._holdings, self._changed.set)
        try:
            while not self._closed:
                await self._take_part(member, reader, topic)
            await member.leave(self._done())
        except Evicted:
            raise
        except BrokerUnavailable:
            if link.up:
                await member.leave({})
            raise
        finally:
            self._member_id = member.id
            self._reader = None
            self._holdings.clear()
            reader.close()
            link.abort()

    async def _take_part(self, member: Member, reader: Reader, topic: Topic) -> None:
        """One generation of the group: from joining to the next change."""
        await self._commit(member)
        share = await member.join(self._holdings.claim(), self._partitions)
        if share is None:
            return
        await self._take_over(share)
        self._reader, self._trouble = reader, None
        self._changed.set()
        await self._stay(member, reader, topic)
        self._reader = None

    async def _stay(self, member: Member, reader: Reader, topic: Topic) -> None:
        """Return when the member has to join again, as the group changed or as it should."""
        clock = asyncio.get_running_loop().time
        partitions = self._partitions()
        heartbeat_at = clock() + HEARTBEAT_S
        while not self._closed and not (member.leads and self._partitions() != partitions):
            self._poked.clear()
            await reader.mend()
            reader.check()
            self._check_topic(topic)
            self._holdings.expire(clock())
            if self._holdings.drained or not await self._commit(member):
                return
            if self._silent():
                await self._stay_away(member)
                return
            if clock() >= heartbeat_at:
                if not await member.stays():
                    return
                heartbeat_at = clock() + HEARTBEAT_S
            with suppress(TimeoutError):
                async with asyncio.timeout_at(heartbeat_at):
                    await self._poked.wait()

    async def _take_over(self, share: Share) -> None:
        """Partitions that were added since `ensure` begin at their beginning."""
        offsets: dict[int, int] = {}
        if self._holdings.new_in(share):
            topic = await self._cluster.look_at(self._topic)
            if topic is None or max(share.partitions) >= len(topic.leaders):
                raise BrokerUnavailable(f"topic {self._topic!r} was deleted")
            offsets = await committed(self._cluster, topic, self._group)
            missing = [number for number in share.partitions if number not in offsets]
            if missing:
                offsets |= await self._cluster.earliest(topic, missing)
        self._holdings.take_over(share, offsets)

    async def _commit(self, member: Member) -> bool:
        """Commit what was acknowledged; False if it has to join again first."""
        while offsets := self._holdings.to_commit():
            try:
                taken = await member.commit({partition.number: offset for partition, offset in offsets.items()})
            except BrokerUnavailable:
                self._cluster.doubt()
                raise
            if not taken:
                self._holdings.not_committed(offsets)
                return False
            self._holdings.committed(offsets)
        return True

    def _done(self) -> dict[int, int]:
        return {partition.number: offset for partition, offset in self._holdings.to_commit().items()}

    def _silent(self) -> bool:
        """Whether nobody asked for anything for so long that others should get what this member would."""
        silent_s = asyncio.get_running_loop().time() - self._active_at
        return not self._fetching and silent_s > max(self._redeliver_after_s, _LEAST_SILENCE_S)

    async def _stay_away(self, member: Member) -> None:
        """Leave the group until the next `fetch`."""
        self._reader = None
        await member.leave(self._done())
        self._holdings.clear()
        while not self._fetching and not self._closed:
            self._poked.clear()
            await self._poked.wait()

    def _partitions(self) -> int:
        topic = self._cluster.known(self._topic)
        return len(topic.leaders) if topic is not None else 0

    def _check_topic(self, topic: Topic) -> None:
        present = self._cluster.known(self._topic)
        if present is None or present.id != topic.id:
            raise BrokerUnavailable(f"topic {self._topic!r} was deleted")
