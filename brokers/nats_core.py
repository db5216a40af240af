"""NATS without JetStream: a subject per topic, a queue group per group. At most once.

Confirmed means that the server has taken the message, and no more: it passes it on to who listens at that moment and
keeps nothing. What is published while no member of a group is there, or lies with a member or a server that dies, is
lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from nats import errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Source

from brokers.base import Features, Message
from brokers.keeper import Keeper
from brokers.nats_link import Link, connect, door_of
from core.endpoints import Endpoint
from core.errors import BrokerUnavailable, MessageTooLarge, PublishTimeout, SettingsError
from core.settings import Durability

log = structlog.get_logger()

MAX_MESSAGE_BYTES: Final = 2**20
MAX_WAITING_BYTES: Final = 64 * 2**20
"""What one member keeps until it is fetched; what comes beyond is lost."""

_REQUEST_TIMEOUT_S = 5.0
_SCHEME = "nats+core://"
_LOSS_LOGGED_S = 1.0


class NatsCoreBroker:
    """The port, on plain NATS. There is no redelivery time, and no bound of a topic."""

    def __init__(self, endpoint: Endpoint, *, name: str, durability: Durability = "confirmed") -> None:
        if durability != "relaxed":
            raise SettingsError(
                f"{_SCHEME} delivers at most once and cannot give DURABILITY={durability}; "
                "ask for it with DURABILITY=relaxed"
            )
        door = door_of(endpoint)
        self._keeper = Keeper("nats", str(door), partial(connect, door, name), self._use)
        self._features = Features(max_message_bytes=MAX_MESSAGE_BYTES, refuses_when_full=False, at_most_once=True)
        self._subscriptions: set[NatsCoreSubscription] = set()

    @property
    def features(self) -> Features:
        return self._features

    @property
    def connected(self) -> bool:
        return self._keeper.connected

    async def start(self) -> None:
        self._keeper.start()

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        """The server knows topics and groups by those who listen: there is nothing to make."""
        await _reach(self._keeper.link())

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if len(body) > self._features.max_message_bytes:
            raise MessageTooLarge(f"{len(body)} bytes, at most {self._features.max_message_bytes}")
        try:
            await self._keeper.link().hand_over([(topic, body)], timeout_s)
        except TimeoutError as exc:
            raise PublishTimeout(f"not taken by the server within {timeout_s} s") from exc

    async def subscribe(self, topic: str, group: str) -> NatsCoreSubscription:
        subscription = NatsCoreSubscription(topic, group, link=self._keeper.link, on_close=self._subscriptions.discard)
        await subscription.attach()
        self._subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        self._keeper.end()
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        await self._keeper.close()

    def _use(self, link: Link) -> None:
        most = min(self._features.max_message_bytes, link.client.max_payload)
        self._features = replace(self._features, max_message_bytes=most)


class NatsCoreSubscription:
    """One member of a group: what comes is kept until it is fetched, within MAX_WAITING_BYTES."""

    def __init__(
        self,
        topic: str,
        group: str,
        *,
        link: Callable[[], Link],
        on_close: Callable[[NatsCoreSubscription], None],
    ) -> None:
        self.lost = 0
        """Messages that came and could not be kept, or were kept and not fetched before `close`."""
        self._topic = topic
        self._group = group
        self._present_link = link
        self._on_close = on_close
        self._link: Link | None = None
        self._source: Source | None = None
        self._buffer: deque[bytes] = deque()
        self._buffer_bytes = 0
        self._changed = asyncio.Event()
        self._loss_logged_at = float("-inf")
        self._closed = False

    async def attach(self) -> Link:
        """Listen on the present connection; returns when the server knows.

        That takes the time it takes: a fetch that cut it off at its own deadline would begin it again for ever. Raises
        BrokerUnavailable.
        """
        self._check_open()
        link = self._present_link()
        if link is self._link:
            return link
        source = await link.listen(self._topic, self._receive, self._group)
        try:
            await _reach(link)
            self._check_open()
        except BaseException:
            await self._leave(link, source)
            raise
        if self._link is not None:
            self._link.waiting.discard(self._changed)
        self._link, self._source = link, source
        link.waiting.add(self._changed)
        return link

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        """What has come is handed out whether or not there is a connection: nobody else has it."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            link = await self.attach()
            async with asyncio.timeout_at(deadline):
                while not self._buffer:
                    self._changed.clear()
                    await self._changed.wait()
                    self._check_open()
                    if not link.up:
                        raise BrokerUnavailable("connection lost")
        except TimeoutError:
            return []
        except BrokerUnavailable:
            if self._closed or not self._buffer:
                raise
        return self._take(max_messages, max_bytes)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """The server does not want to know."""
        self._check_open()
        self._present_link()

    async def extend(self, messages: Sequence[Message]) -> None:
        """Nothing is delivered again."""
        self._check_open()
        self._present_link()

    async def close(self) -> None:
        self._closed = True
        self._changed.set()
        link, source, self._source = self._link, self._source, None
        if link is not None and source is not None:
            await self._leave(link, source)
            self._lose(len(self._buffer))
            link.waiting.discard(self._changed)
        self._on_close(self)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")

    async def _leave(self, link: Link, source: Source) -> None:
        try:
            await source.unsubscribe()
        except (errors.Error, OSError) as exc:
            log.debug("broker_leave_failed", error=repr(exc))

    def _receive(self, message: Msg) -> None:
        if self._buffer_bytes + len(message.data) > MAX_WAITING_BYTES:
            self._lose(1)
            return
        self._buffer.append(message.data)
        self._buffer_bytes += len(message.data)
        self._changed.set()

    def _lose(self, messages: int) -> None:
        self.lost += messages
        now = asyncio.get_running_loop().time()
        if messages and now - self._loss_logged_at > _LOSS_LOGGED_S:
            self._loss_logged_at = now
            log.warning("messages_lost", topic=self._topic, group=self._group, lost=self.lost)

    def _take(self, max_messages: int, max_bytes: int) -> list[Message]:
        messages: list[Message] = []
        size_bytes = 0
        while self._buffer and len(messages) < max_messages and size_bytes < max_bytes:
            body = self._buffer.popleft()
            messages.append(Message(body, None))
            size_bytes += len(body)
        self._buffer_bytes -= size_bytes
        return messages


async def _reach(link: Link) -> None:
    """Return when the server has answered, and so knows all that it was sent before."""
    try:
        await link.hand_over([], _REQUEST_TIMEOUT_S)
    except TimeoutError as exc:
        raise BrokerUnavailable(f"no answer within {_REQUEST_TIMEOUT_S} s") from exc
