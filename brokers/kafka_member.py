"""The conversation of one member with the coordinator of its group: join, stay, commit, leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from brokers.kafka_cluster import Topic
from brokers.kafka_link import ANSWER_S, Link
from brokers.kafka_share import PROTOCOL, Share, decode_claim, decode_share, encode_claim, encode_share, shares
from brokers.kafka_wire import (
    Code,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    SyncGroupRequest,
    code_name,
)
from core.errors import BrokerUnavailable

SESSION_S: Final = 6.0
"""A member that is not heard of for so long is taken for dead: the least that a server takes unless told otherwise."""
REBALANCE_S: Final = 6.0
"""How long a rebalance waits for members that do not join again; ours do so at once, whatever they hold."""
CLOSE_TIMEOUT_S: Final = 1.0


class Evicted(BrokerUnavailable):
    """The group does not know this member any more; it may join again, as another."""


class Member:
    """One member, on a connection of its own. Raises BrokerUnavailable, and Evicted."""

    def __init__(self, link: Link, group: str, topic: Topic, member_id: str) -> None:
        self.id = member_id
        """Given by the coordinator; the same member may join again by it, on another connection too."""
        self.leads = False
        self._link = link
        self._group = group
        self._topic = topic
        self._generation = -1

    async def join(self, held: Collection[int], partitions: Callable[[], int]) -> Share | None:
        """Join, or join again; None if that is to be tried again. `partitions` is how many there are to share."""
        request = JoinGroupRequest(
            self._group,
            int(SESSION_S * 1000),
            int(REBALANCE_S * 1000),
            self.id,
            None,
            "consumer",
            [(PROTOCOL, encode_claim(self._topic.name, held))],
        )
        joined = await self._link.ask(request, REBALANCE_S + ANSWER_S)
        if joined.error_code == Code.MEMBER_ID_REQUIRED:
            self.id = joined.member_id
            return None
        if joined.error_code == Code.UNKNOWN_MEMBER and self._generation < 0:
            self.id = ""  # that of an earlier connection, and given up
            return None
        self._check("join", joined.error_code)
        self.id, self._generation = joined.member_id, joined.generation_id
        self.leads = joined.leader_id == self.id
        given: list[tuple[str, bytes]] = []
        if self.leads:
            claims = {member: decode_claim(data) for member, _, data in joined.members}
            given = [
                (member, encode_share(self._topic.name, own)) for member, own in shares(partitions(), claims).items()
            ]
        synced = await self._link.ask(SyncGroupRequest(self._group, self._generation, self.id, None, given))
        if synced.error_code == Code.REBALANCE:
            return None
        self._check("sync", synced.error_code)
        return decode_share(synced.member_assignment)

    async def stays(self) -> bool:
        """Tell that it is alive; False if it has to join again."""
        answer = await self._link.ask(HeartbeatRequest(self._group, self._generation, self.id))
        if answer.error_code == Code.REBALANCE:
            return False
        self._check("heartbeat", answer.error_code)
        return True

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit partition -> offset; False if it has to join again, and nothing was committed."""
        answer = await self._link.ask(self._commit(offsets))
        codes = {code for _, partitions in answer.topics for _, code in partitions} - {Code.NONE}
        if Code.REBALANCE in codes:
            return False
        for code in codes:
            self._check("commit", code)
        return True

    async def leave(self, offsets: Mapping[int, int]) -> None:
        """Commit a last time and leave, both in one go; a server that does not answer is not waited for long."""
        with suppress(BrokerUnavailable):
            if offsets:
                self._link.tell(self._commit(offsets))
            left = await self._link.ask(LeaveGroupRequest(self._group, self.id), CLOSE_TIMEOUT_S)
            if left.error_code == Code.NONE:
                self.id = ""

    def _commit(self, offsets: Mapping[int, int]) -> Any:
        found = [(number, offset, self._topic.id) for number, offset in offsets.items()]
        return OffsetCommitRequest(self._group, self._generation, self.id, -1, [(self._topic.name, found)])

    def _check(self, step: str, code: int) -> None:
        if code == Code.NONE:
            return
        if code in (Code.UNKNOWN_MEMBER, Code.ILLEGAL_GENERATION):
            if code == Code.UNKNOWN_MEMBER:
                self.id = ""
            raise Evicted(f"{step}: {code_name(code)}")
        raise BrokerUnavailable(f"{step} in group {self._group!r}: {code_name(code)}")
