"""The cluster as this process sees it: its nodes, who leads which partition, and a connection to each node that leads
one of the topics that are used here. Connections are made anew for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from brokers.kafka_link import ANSWER_S, Link, connect
from brokers.kafka_wire import Code, FindCoordinatorRequest, MetadataRequest, OffsetRequest, code_name
from core.doors import Door
from core.endpoints import Address, address_text
from core.errors import BrokerUnavailable, EntryRefused

log = structlog.get_logger()

RETRY_S: Final = 0.25
"""Between two tries to connect."""
PAUSE_S: Final = 0.05
"""Before an answer that says "not yet" is asked for again."""
TRIES: Final = 100
"""How often it is asked for."""
NOT_YET: Final = {
    Code.COORDINATOR_LOADING,
    Code.COORDINATOR_NOT_AVAILABLE,
    Code.NOT_COORDINATOR,
    Code.NOT_CONTROLLER,
    Code.REQUEST_TIMED_OUT,
}

_REFRESH_S = 1.0
"""Between two looks at the cluster, which also show that it answers."""
_EARLIEST = -2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    id: str
    leaders: Sequence[int]
    """Partition -> node, -1 while it has none."""
    replicas: int
    """Of the partition that has most."""


class Cluster:
    """`run` keeps it connected; all else may be called at any time, and raises BrokerUnavailable when it is not."""

    def __init__(self, door: Door, client: str) -> None:
        self.watching: set[Callable[[], None]] = set()
        """Called when a connection is lost or the cluster was looked at."""
        self._door = door
        self._client = client
        self._nodes: dict[int, Address] = {}
        self._links: dict[int, Link] = {}
        self._topics: dict[str, Topic | None] = {}
        self._doubt = asyncio.Event()
        self._closed = False
        self._was_connected = False
        self._complaint = ""
        """What connecting fails of now."""
        self._told: set[str] = set()

    def __str__(self) -> str:
        return str(self._door)

    @property
    def connected(self) -> bool:
        return not self._closed and any(link.up for link in self._links.values())

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self._nodes)

    def any_link(self) -> Link:
        links = [link for link in self._links.values() if link.up]
        if self._closed or not links:
            reason = f": {self._complaint}" if self._complaint else f" to {self._door}"
            raise BrokerUnavailable("closed" if self._closed else f"no connection{reason}")
        return random.choice(links)  # noqa: S311

    def link_to(self, node: int) -> Link:
        link = self._links.get(node)
        if self._closed or link is None or not link.up:
            raise BrokerUnavailable("closed" if self._closed else f"no connection to node {node}")
        return link

    async def connect_to(self, node: int) -> None:
        """Have a connection to `node`."""
        present = self._links.get(node)
        if present is None or not present.up:
            if node not in self._nodes:
                raise BrokerUnavailable(f"node {node} is not known")
            self._keep(node, await connect(self._door, self._nodes[node], self._client))

    async def own_link(self, node: int) -> Link:
        """A connection for one user alone, who closes it: what waits at the node on it holds up nobody else."""
        self.any_link()
        if node not in self._nodes:
            raise BrokerUnavailable(f"node {node} is not known")
        return await connect(self._door, self._nodes[node], self._client)

    def known(self, name: str) -> Topic | None:
        """The topic as it was last seen."""
        return self._topics.get(name)

    async def topic(self, name: str) -> Topic | None:
        """The topic as it was last seen, or None if there is none now."""
        return self._topics.get(name) or await self.look_at(name)

    async def look_at(self, name: str) -> Topic | None:
        """The topic as it is now."""
        link = self.any_link()
        if name not in self._topics:
            self._topics[name] = None
        await self._read_metadata(link, [name])
        found = self._topics[name]
        if found is not None and any(node not in self._links for node in found.leaders):
            await self._connect_leaders()
        return found

    def doubt(self) -> None:
        """Look at the cluster soon: an answer did not fit what is known of it."""
        self._doubt.set()

    async def coordinator(self, group: str) -> int:
        """The node that coordinates `group`, waited for while the cluster is still choosing one."""
        for _ in range(TRIES):
            answer = await self.any_link().ask(FindCoordinatorRequest(group, 0))
            if answer.error_code == Code.NONE:
                return int(answer.coordinator_id)
            if answer.error_code not in NOT_YET:
                break
            await asyncio.sleep(PAUSE_S)
        raise BrokerUnavailable(f"no coordinator of {group!r}: {code_name(answer.error_code)}")

    async def earliest(self, topic: Topic, partitions: Sequence[int]) -> dict[int, int]:
        """The first offset that each of `partitions` still holds."""
        by_leader: dict[int, list[int]] = {}
        for number in partitions:
            by_leader.setdefault(topic.leaders[number], []).append(number)
        found: dict[int, int] = {}
        for node, numbers in by_leader.items():
            request = OffsetRequest(-1, 0, [(topic.name, [(number, _EARLIEST) for number in numbers])])
            answer = await self.link_to(node).ask(request)
            for number, code, _, offset in answer.topics[0][1]:
                if code != Code.NONE:
                    self.doubt()
                    raise BrokerUnavailable(f"{topic.name}, partition {number}: {code_name(code)}")
                found[number] = offset
        return found

    async def run(self) -> None:
        """Stay connected, until cancelled."""
        while True:
            self._doubt.clear()
            try:
                await self._look()
                pause_s = _REFRESH_S
            except Exception as exc:  # whatever aiokafka raises at what it cannot read, the next try may succeed
                self._tell(exc)
                pause_s = RETRY_S
            self._notify()
            if self._was_connected and not self.connected:
                self._was_connected = False
                log.warning("broker_lost", broker=str(self._door))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._doubt.wait()
                await asyncio.sleep(PAUSE_S)

    def close(self) -> None:
        """End everything that waits for a connection."""
        self._closed = True
        for link in list(self._links.values()):
            link.abort()
        self._notify()

    async def _look(self) -> None:
        if not self.connected:
            await self._connect_any()
        link = self.any_link()
        try:
            await self._read_metadata(link, list(self._topics))
        except BrokerUnavailable:
            if link.up and link.silent_s >= ANSWER_S:
                link.abort()
            raise
        await self._connect_leaders()
        if self.connected and not self._was_connected:
            self._was_connected, self._complaint = True, ""
            self._told.clear()
            log.info("broker_connected", broker=str(self._door))

    async def _connect_any(self) -> None:
        """Connect to some node, under its number. Raises BrokerUnavailable: of the nodes' reasons, one that can be put
        right rather than one that cannot."""
        tried = [*self._nodes.values(), *self._door.endpoint.hosts]
        random.shuffle(tried)
        error = BrokerUnavailable("no address")
        for address in dict.fromkeys(tried):
            try:
                link = await connect(self._door, address, self._client)
            except BrokerUnavailable as exc:
                if not isinstance(error.__cause__, EntryRefused):
                    error = exc
                continue
            try:
                await self._read_metadata(link, [])
                await self._keep_or_replace(link)
                return
            except BrokerUnavailable as exc:
                error = exc
                link.abort()
        raise error

    async def _keep_or_replace(self, link: Link) -> None:
        """A node may be reached by another address than the one it tells."""
        for node, address in self._nodes.items():
            if address == link.address:
                self._keep(node, link)
                return
        if not self._nodes:
            raise BrokerUnavailable(f"{address_text(link.address)} knows of no node that serves")
        await self.connect_to(random.choice(list(self._nodes)))  # noqa: S311
        link.abort()

    async def _connect_leaders(self) -> None:
        """To every node that leads something here and is not connected; one that is down holds up no other."""
        leaders = {node for topic in self._topics.values() if topic for node in topic.leaders if node in self._nodes}
        for outcome in await asyncio.gather(*map(self.connect_to, leaders), return_exceptions=True):
            if isinstance(outcome, BrokerUnavailable):
                self._tell(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome

    def _keep(self, node: int, link: Link) -> None:
        present = self._links.get(node)
        if self._closed or (present is not None and present.up):
            link.abort()
            return
        link.lost = partial(self._on_lost, node, link)
        self._links[node] = link

    async def _read_metadata(self, link: Link, names: Sequence[str]) -> None:
        answer = await link.ask(MetadataRequest(list(names)))
        self._nodes = {node: (host, port) for node, host, port, _, _ in answer.brokers}
        for code, name, id_high, id_low, _, partitions, _, _ in answer.topics:
            self._topics[name] = None if code else _topic(name, id_high, id_low, partitions)

    def _on_lost(self, node: int, link: Link) -> None:
        if self._links.get(node) is link:
            del self._links[node]
        self.doubt()
        self._notify()

    def _notify(self) -> None:
        for notify in list(self.watching):
            notify()

    def _tell(self, error: Exception) -> None:
        """Of the many tries that may follow, each with an error, one is enough."""
        complaint = str(error) or repr(error)
        if not self.connected:
            self._complaint = complaint
        if complaint not in self._told:
            self._told.add(complaint)
            log.warning("broker_connect_failed", broker=str(self._door), error=complaint)


def _topic(name: str, id_high: int, id_low: int, partitions: Sequence[Any]) -> Topic:
    mask = 2**64 - 1
    leaders = [-1] * len(partitions)
    replicas = 0
    for _, number, leader, _, nodes, *_ in partitions:
        leaders[number] = leader
        replicas = max(replicas, len(nodes))
    return Topic(name, f"{id_high & mask:016x}{id_low & mask:016x}", leaders, replicas)
