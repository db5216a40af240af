"""A member of a consumer group on RabbitMQ: a connection of its own, with a consumer on the group's queue.

The server pushes; the port pulls. So the server is allowed no more than was asked for (prefetch), what it sends beyond
a fetch's bounds in bytes waits here, and a member that has not fetched for a while gives it back.

The connection is its own because a server short of memory stops reading those that have published, and would not read
acknowledgements there, which alone could free some; and because a member that holds enough can stop reading it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, cast

from pamqp import commands

from brokers import rabbit_wire as wire
from brokers.base import Message
from brokers.rabbit_channel import Channel, ask
from brokers.rabbit_link import Link
from core.errors import BrokerError, BrokerUnavailable

MAX_UNACKNOWLEDGED: Final = 8192
"""Messages that the server sends one member ahead of its acknowledgements."""

_IDLE_S = 1.0
"""A member that has not fetched for this long gives back what it has not handed out."""
_SILENT_S = 6.0
"""A member that waits and is sent nothing for this long looks at its queue. What the server tells of one is up to 5 s
old."""
_LOOK_EVERY_S = 2.0
_MAX_WAITING_BYTES = 8 * 2**20
"""Beyond, the member reads nothing until it is fetched from."""


class _Consumer(Channel):
    """The channel of a member: messages come in, settlements go out."""

    def __init__(self, link: Link, queue: str, receive: Callable[[int, bytes], None], changed: asyncio.Event) -> None:
        super().__init__(link)
        self.link = link
        self.prefetch = 0
        """How many messages the server may send ahead of their acknowledgements; 0 while it is to send none."""
        self._queue = queue
        self._receive = receive
        self._changed = changed
        self._tag = 0

    async def open(self) -> None:
        """Raises BrokerError if there is no such queue."""
        await self.call(commands.Channel.Open(), commands.Queue.Declare(queue=self._queue, passive=True))

    def consume(self, prefetch: int) -> None:
        """Have up to `prefetch` unacknowledged messages sent, beside those that came before. The prefetch of a consumer
        cannot be changed, and that of a channel not be set with quorum queues: so another consumer follows the one."""
        self.stop()
        self._tag += 1
        self.prefetch = prefetch
        self.send(
            commands.Basic.Qos(prefetch_count=prefetch),
            commands.Basic.Consume(queue=self._queue, consumer_tag=str(self._tag)),
        )

    def stop(self) -> None:
        """What is on its way still comes."""
        if self.prefetch:
            self.prefetch = 0
            self.send(commands.Basic.Cancel(consumer_tag=str(self._tag), nowait=True))

    def acknowledge(self, tags: Sequence[int], lowest_held: float) -> None:
        """`tags`, of which all below `lowest_held` are all that is left below it."""
        covered = max((tag for tag in tags if tag < lowest_held), default=0)
        frames = [wire.acknowledgement(self.number, covered, multiple=True)] if covered else []
        frames += [wire.acknowledgement(self.number, tag) for tag in tags if tag > lowest_held]
        self._link.write(b"".join(frames))

    def requeue(self, tags: Iterable[int]) -> None:
        self._link.write(b"".join(wire.requeueing(self.number, tag) for tag in tags))

    def on_method(self, name: bytes, payload: bytes) -> None:
        if name == wire.BASIC_CANCEL:
            self.fail(BrokerUnavailable(f"queue {self._queue!r} is gone"))
        elif name != wire.BASIC_DELIVER:
            super().on_method(name, payload)

    def on_content(self, method: bytes, body: bytes) -> None:
        self._receive(wire.delivery_tag(method), body)

    def fail(self, error: BrokerError) -> None:
        super().fail(error)
        self._changed.set()


class RabbitSubscription:
    """One member of a group. A receipt is the consumer that a message came through, and its tag there."""

    def __init__(
        self,
        queue: str,
        *,
        connect: Callable[[Link], Awaitable[None]],
        check_connected: Callable[[], object],
        on_close: Callable[[RabbitSubscription], None],
        redeliver_after_s: float,
    ) -> None:
        self._queue = queue
        self._connect = connect
        self._check_connected = check_connected
        self._on_close = on_close
        self._redeliver_after_s = redeliver_after_s
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._consumer: _Consumer | None = None
        self.waiting_bytes = 0
        """The size of what has arrived and was not fetched."""
        self._waiting: deque[tuple[int, bytes]] = deque()
        """Arrived and not fetched: tag and body."""
        self._held: OrderedDict[int, float] = OrderedDict()
        """Fetched and not acknowledged: tag -> when it is given back, earliest first."""
        self._changed = asyncio.Event()
        self._heard = 0.0
        """When a message arrived, or the server was asked for some."""
        self._fetching = False
        self._idle: asyncio.TimerHandle | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._waking: asyncio.TimerHandle | None = None
        self._closed = False

    async def attach(self) -> _Consumer:
        """The consumer, on a connection made anew if the former one is lost. That takes the time it takes: a fetch that
        cut it off at its own deadline would begin it again for ever. Raises BrokerUnavailable and, if the group is not
        there, BrokerError."""
        self._check_open()
        consumer = self._consumer
        if consumer is not None and consumer.error is None and consumer.link.up:
            return consumer
        self._check_connected()
        await self._detach()
        link = self._link = Link()
        try:
            await self._connect(link)
            consumer = _Consumer(link, self._queue, self._receive, self._changed)
            await consumer.open()
            self._check_open()
        except BaseException:
            await link.close()
            raise
        self._consumer = consumer
        self._wake()
        return consumer

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        deadline = self._loop.time() + timeout_s
        self._begin_fetch()
        try:
            consumer = await self.attach()
            async with asyncio.timeout_at(deadline):
                if not self._waiting:
                    self._ask(consumer, max_messages)
                while not self._waiting:
                    self._changed.clear()
                    await self._changed.wait()
                    if not self._waiting:
                        await self._look_after(consumer)
                    self._check_open()
                    if consumer.error is not None:
                        raise BrokerUnavailable(str(consumer.error))
        except TimeoutError:
            return []
        except BrokerUnavailable:
            raise
        except BrokerError as exc:
            raise BrokerUnavailable(str(exc)) from exc
        finally:
            self._end_fetch()
        return self._take(consumer, max_messages, max_bytes)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        consumer = self._present()
        tags = [tag for tag in self._tags_of(consumer, messages) if self._held.pop(tag, None) is not None]
        if consumer is not None and tags:
            consumer.acknowledge(tags, min(self._held, default=float("inf")))

    async def extend(self, messages: Sequence[Message]) -> None:
        consumer = self._present()
        due = self._loop.time() + self._redeliver_after_s
        for tag in self._tags_of(consumer, messages):
            if tag in self._held:
                self._held[tag] = due
                self._held.move_to_end(tag)

    async def close(self) -> None:
        """The server requeues what a connection that ends has not acknowledged."""
        self._closed = True
        self._changed.set()
        await self._detach()
        self._on_close(self)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")

    def _present(self) -> _Consumer | None:
        """The consumer, or None if only its own connection is lost. Raises BrokerUnavailable."""
        self._check_open()
        consumer = self._consumer
        if consumer is not None and consumer.error is None and consumer.link.up:
            return consumer
        self._check_connected()
        return None

    @staticmethod
    def _tags_of(consumer: _Consumer | None, messages: Sequence[Message]) -> list[int]:
        """Stale receipts are passed over."""
        return [tag for origin, tag in (message.receipt for message in messages) if origin is consumer]

    async def _detach(self) -> None:
        link, self._link, self._consumer = self._link, None, None
        for timer in (self._idle, self._overdue, self._waking):
            if timer is not None:
                timer.cancel()
        self._idle = self._overdue = self._waking = None
        self._waiting.clear()
        self.waiting_bytes = 0
        self._held.clear()
        if link is not None:
            await link.close()

    def _begin_fetch(self) -> None:
        self._fetching = True
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end_fetch(self) -> None:
        self._fetching = False
        if self._consumer is not None and not self._closed:
            self._idle = self._loop.call_later(_IDLE_S, self._rest)

    def _ask(self, consumer: _Consumer, max_messages: int) -> None:
        """Have the server send what is wanted beyond what is held; the more of that, the more room, so that a member
        that acknowledges one fetch while it waits for the next seldom needs to ask."""
        wanted = max_messages
        if self._held:
            wanted = 1 << (len(self._held) + max_messages - 1).bit_length()
        wanted = min(wanted, MAX_UNACKNOWLEDGED)
        if wanted > consumer.prefetch:
            consumer.consume(wanted)
            self._heard = self._loop.time()

    def _wake(self) -> None:
        """A fetch that waits, so that it looks after the consumer."""
        self._waking = self._loop.call_later(_LOOK_EVERY_S, self._wake)
        self._changed.set()

    async def _look_after(self, consumer: _Consumer) -> None:
        """Give up a consumer that holds nothing and is sent nothing of what its queue has, or of which the queue does
        not know: RabbitMQ (3.10) does not always tell a consumer that its quorum queue was deleted, and one that is
        made anew in its place may then say that it has the consumer, and send it nothing. Raises BrokerError if the
        queue cannot be looked at."""
        if self._held or self._loop.time() - self._heard < _SILENT_S:
            return
        (answer,) = await ask(consumer.link, [commands.Queue.Declare(queue=self._queue, passive=True)])
        queue = cast(commands.Queue.DeclareOk, answer)
        if not self._waiting and (queue.message_count or not queue.consumer_count):
            consumer.fail(BrokerUnavailable(f"queue {self._queue!r} has forgotten its consumer"))

    def _receive(self, tag: int, body: bytes) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        if not self._fetching and not consumer.prefetch:  # on its way when the member came to rest
            consumer.requeue([tag])
            return
        self._heard = self._loop.time()
        self._waiting.append((tag, body))
        self.waiting_bytes += len(body)
        if self.waiting_bytes > _MAX_WAITING_BYTES:
            consumer.link.pause()
        self._changed.set()

    def _take(self, consumer: _Consumer, max_messages: int, max_bytes: int) -> list[Message]:
        due = self._loop.time() + self._redeliver_after_s
        messages: list[Message] = []
        size_bytes = 0
        while self._waiting and len(messages) < max_messages and size_bytes < max_bytes:
            tag, body = self._waiting.popleft()
            self._held[tag] = due
            messages.append(Message(body, (consumer, tag)))
            size_bytes += len(body)
        self.waiting_bytes -= size_bytes
        if self.waiting_bytes <= _MAX_WAITING_BYTES:
            consumer.link.resume()
        if self._overdue is None and self._held:
            self._overdue = self._loop.call_at(due, self._give_back_overdue)
        return messages

    def _rest(self) -> None:
        """Be sent nothing more, and give back what was not handed out."""
        consumer = self._consumer
        if consumer is None:
            return
        consumer.stop()
        consumer.requeue(tag for tag, _ in self._waiting)
        self._waiting.clear()
        self.waiting_bytes = 0
        consumer.link.resume()

    def _give_back_overdue(self) -> None:
        """A member that does not fetch comes to rest first: it would be sent again what it gives back."""
        self._overdue = None
        now = self._loop.time()
        overdue = []
        while self._held and next(iter(self._held.values())) <= now:
            overdue.append(self._held.popitem(last=False)[0])
        if self._held:
            self._overdue = self._loop.call_at(next(iter(self._held.values())), self._give_back_overdue)
        if self._consumer is not None and overdue:
            if not self._fetching:
                self._rest()
            self._consumer.requeue(overdue)
