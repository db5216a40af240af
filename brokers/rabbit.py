"""RabbitMQ: one fanout exchange per topic, and bound to it one durable queue per group.

Confirmed means stored by every group's queue: the exchange copies a message to all of them, and the server confirms
when each has it. The queues refuse what is beyond their bound, and a message that no queue takes is returned.

Publishing has one connection, each member of a group another. Each is a `Link` and replaced as a whole.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pamqp import commands
from pamqp.base import Frame

from brokers.base import Features
from brokers.keeper import Keeper
from brokers.rabbit_channel import ask
from brokers.rabbit_link import Link, door_of
from brokers.rabbit_publish import Publisher
from brokers.rabbit_pull import RabbitSubscription
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, MessageTooLarge, PublishTimeout
from core.settings import Durability

MAX_MESSAGE_BYTES: Final = 2**20
DELIVERY_LIMIT: Final = 10**9
"""As good as none, for a quorum queue: unset it is 20 from RabbitMQ 4.0 on, and with -1 3.10 drops what comes again."""

_SETTLING_S = 2.0
"""How long queues are given, from the newest on, before they are trusted. RabbitMQ 3.10 writes the register of a node's
quorum queues once none has been added for half a second, looked at twice a second, so up to a second after the newest;
of a queue that is not in it when the server is killed it finds nothing again, whatever it confirmed."""
_TRANSIENT = 1
_PERSISTENT = 2
_OTHER_BOUND = re.compile(r"inequivalent arg 'x-max-length-bytes' for queue '([^']+)'.* current is (?:none|.*?'(\d+)')")
_OTHER_ARGUMENT: Final = "inequivalent arg"
_WAY_OUT: Final = "delete it once all is counted, or set DURABILITY as it was"


class RabbitBroker:
    """The port, on AMQP 0-9-1.

    `redeliver_after_s` is how long a member may be silent about a message; `max_topic_bytes` bounds what each group's
    queue that `ensure` makes may hold.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        durability: Durability = "confirmed",
        redeliver_after_s: float = 10.0,
        max_topic_bytes: int = 2**30,
    ) -> None:
        self._door = door_of(endpoint)
        self._name = name
        self._delivery_mode = _TRANSIENT if durability == "relaxed" else _PERSISTENT
        self._queue_settings = _queue_settings(durability, max_topic_bytes)
        self._redeliver_after_s = redeliver_after_s
        self._features = Features(max_message_bytes=MAX_MESSAGE_BYTES)
        self._keeper = Keeper("rabbit", str(self._door), self._connect, self._use)
        self._publishers: dict[str, Publisher] = {}
        self._subscriptions: set[RabbitSubscription] = set()
        self._settled_at = 0.0

    @property
    def features(self) -> Features:
        return self._features

    @property
    def connected(self) -> bool:
        return self._keeper.connected

    async def start(self) -> None:
        self._keeper.start()

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        link = self.link()
        queues = [_queue(topic, group) for group in groups]
        stood = await self._stand(link, queues)
        await self._declare(link, topic, queues)
        if not stood:
            self._settled_at = time.monotonic() + _SETTLING_S
        while (left_s := self._settled_at - time.monotonic()) > 0:
            await link.wait_lost(left_s)
            self.link()

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if len(body) > self._features.max_message_bytes:
            raise MessageTooLarge(f"{len(body)} bytes, at most {self._features.max_message_bytes}")
        link = self.link()
        if link.blocked is not None:
            raise BrokerFull(link.blocked)
        publisher = self._publisher(link, topic)
        try:
            async with asyncio.timeout(timeout_s):
                await publisher.publish(body)
        except TimeoutError as exc:
            raise PublishTimeout(f"no confirm within {timeout_s} s") from exc
        except MessageTooLarge:
            self._limit_message_bytes(publisher.max_message_bytes)
            raise

    async def subscribe(self, topic: str, group: str) -> RabbitSubscription:
        subscription = RabbitSubscription(
            _queue(topic, group),
            connect=partial(Link.open, door=self._door, name=f"{self._name} {group}"),
            check_connected=self.link,
            on_close=self._subscriptions.discard,
            redeliver_after_s=self._redeliver_after_s,
        )
        self._subscriptions.add(subscription)
        try:
            await subscription.attach()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def close(self) -> None:
        self._keeper.end()
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        await self._keeper.close()

    def link(self) -> Link:
        """The connection for publishing; raises BrokerUnavailable while there is none."""
        return self._keeper.link()

    def _publisher(self, link: Link, topic: str) -> Publisher:
        """The channel of `topic`, made anew after it was closed or a queue refused what came on it."""
        present = self._publishers.get(topic)
        if present is not None and present.error is None and not present.refused:
            return present
        if present is not None:
            present.retire()
        self._publishers[topic] = Publisher(link, topic, self._delivery_mode)
        return self._publishers[topic]

    async def _stand(self, link: Link, queues: Sequence[str]) -> bool:
        """Whether all `queues` are there."""
        try:
            await ask(link, [commands.Queue.Declare(queue=queue, passive=True) for queue in queues])
        except BrokerUnavailable:
            raise
        except BrokerError:
            return False
        return True

    async def _declare(self, link: Link, topic: str, queues: Sequence[str]) -> None:
        """A queue that exists with another bound keeps it: that loses nothing. The server tells of one difference at a
        time, so the others are looked at with the bound that it has."""
        settings = dict.fromkeys(queues, self._queue_settings)
        for _ in range(len(queues) + 1):
            requests: list[Frame] = [commands.Exchange.Declare(exchange=topic, exchange_type="fanout", durable=True)]
            for queue, arguments in settings.items():
                requests.append(commands.Queue.Declare(queue=queue, durable=True, arguments=arguments))
                requests.append(commands.Queue.Bind(queue=queue, exchange=topic, routing_key=""))
            try:
                await ask(link, requests)
                return
            except BrokerError as exc:
                found = _OTHER_BOUND.search(str(exc))
                if found is None and _OTHER_ARGUMENT in str(exc):
                    raise BrokerError(f"topic {topic!r}: {exc}; {_WAY_OUT}") from exc
                if found is None or found[1] not in settings:
                    raise
                settings[found[1]] = _with_bound(self._queue_settings, found[2])
        raise BrokerUnavailable(f"topic {topic!r}: its queues change while they are looked at")

    async def _connect(self) -> Link:
        link = Link()
        try:
            await link.open(self._door, self._name)
        except BaseException:
            await link.close()
            raise
        return link

    def _use(self, link: Link) -> None:
        self._publishers.clear()

    def _limit_message_bytes(self, limit: int | None) -> None:
        if limit is not None:
            most = min(self._features.max_message_bytes, limit)
            self._features = replace(self._features, max_message_bytes=most)


def _queue(topic: str, group: str) -> str:
    return f"{topic}.{group}"


def _queue_settings(durability: Durability, max_bytes: int) -> dict[str, Any]:
    """The arguments of a queue; those of one that exists must be the same."""
    settings = {"x-overflow": "reject-publish", "x-max-length-bytes": max_bytes}
    if durability == "relaxed":
        return {**settings, "x-queue-type": "classic"}
    return {**settings, "x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}


def _with_bound(settings: dict[str, Any], max_bytes: str | None) -> dict[str, Any]:
    others = {name: value for name, value in settings.items() if name != "x-max-length-bytes"}
    return others if max_bytes is None else {**others, "x-max-length-bytes": int(max_bytes)}
