"""A member of a consumer group on NATS JetStream: pulls from the durable consumer that `brokers.nats` made."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
from nats import errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Source

from brokers.base import Message
from brokers.keeper import RETRY_S
from brokers.nats_link import CLOSE_TIMEOUT_S, NO_RESPONDERS, Link, new_inbox, status
from core.errors import BrokerError, BrokerUnavailable

SURE_S: Final = 1.0
"""For how long a message that came, or a look at the group, is taken to prove that the group was not made anew."""

_LONGEST_PULL_S = 5.0
"""A waiting pull is renewed this often: whatever loses one costs no more than this."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """What receipts belong to: a member on one connection, by its inbox, and the group as it was made."""

    inbox: str = ""
    made: str = ""


class _Receipt(NamedTuple):
    origin: _Origin
    reply: str
    came_at: float


class NatsSubscription:
    """One member of a group: pulls through an inbox of its own, which is made anew on every connection."""

    def __init__(
        self,
        topic: str,
        group: str,
        *,
        link: Callable[[], Link],
        look_up_group: Callable[[], Awaitable[str]],
        on_close: Callable[[NatsSubscription], None],
        redeliver_after_s: float,
    ) -> None:
        self._present_link = link
        self._look_up_group = look_up_group
        self._on_close = on_close
        self._pull_subject = f"$JS.API.CONSUMER.MSG.NEXT.{topic}.{group}"
        self._redeliver_after_s = redeliver_after_s
        self._link: Link | None = None
        self._source: Source | None = None
        self._origin = _Origin()
        self._sure_at = 0.0
        """When the group was last looked up."""
        self._buffer: deque[tuple[Msg, float]] = deque()
        """Arrived, when, and not fetched: late answers to earlier pulls too."""
        self._held: OrderedDict[str, float] = OrderedDict()
        """Fetched and not acknowledged: receipt -> when the server delivers it again, earliest first."""
        self._behind = 0
        """Messages that the server still had for the group after the latest delivery, redeliveries not counted."""
        self._pulls = itertools.count()
        self._pull_reply = ""
        self._pull_status = ""
        self._enough = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._leaving = asyncio.Lock()

    async def attach(self) -> Link:
        """Listen on the present connection; what an earlier one delivered is returned for redelivery.

        That takes the time it takes: a fetch that cut it off at its own deadline would begin it again for ever. Raises
        BrokerError if the group is not there: older servers leave a pull for it without an answer.
        """
        self._check_open()
        link = self._present_link()
        if link is self._link:
            return link
        made = await self._look_up_group()
        self._check_open()
        inbox = new_inbox()

        def receive(message: Msg) -> None:
            if inbox == self._origin.inbox:
                self._receive(message)

        source = await link.listen(f"{inbox}.*", receive)
        if self._link is not None:
            self._link.waiting.discard(self._changed)
        self._link, self._origin, self._source = link, _Origin(inbox, made), source
        link.waiting.add(self._changed)
        self._return_all(link)
        return link

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        try:
            link = await self.attach()
        except BrokerError as exc:
            raise BrokerUnavailable(str(exc)) from exc
        self._forget_redelivered(clock())
        if not self._buffer:
            await self._pull(link, max_messages, max_bytes, deadline)
        while not self._buffer and (left_s := deadline - clock()) > 0:
            await self._pull_next(link, min(left_s, _LONGEST_PULL_S))
            more_bytes = max_bytes - sum(len(message.data) for message, _ in self._buffer)
            if self._buffer and self._behind and max_messages > len(self._buffer) and more_bytes > 0:
                await self._pull(link, max_messages - len(self._buffer), more_bytes, deadline)
        return self._take(max_messages, max_bytes, clock() + self._redeliver_after_s)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        self._check_open()
        link = self._present_link()
        receipts = self._own(link, messages)
        if receipts:
            await self._make_sure(link, min(receipt.came_at for receipt in receipts))
        for receipt in receipts:
            if receipt.origin == self._origin:
                link.send(receipt.reply, b"+ACK")
            self._held.pop(receipt.reply, None)

    async def extend(self, messages: Sequence[Message]) -> None:
        self._check_open()
        link = self._present_link()
        due = asyncio.get_running_loop().time() + self._redeliver_after_s
        for receipt in self._own(link, messages):
            if receipt.reply in self._held:
                link.send(receipt.reply, b"+WPI")
                self._held[receipt.reply] = due
                self._held.move_to_end(receipt.reply)

    async def close(self) -> None:
        self._closed = True
        self._changed.set()
        async with self._leaving:
            link, source, self._source = self._link, self._source, None
            if link is not None and source is not None and link.up:
                link.waiting.discard(self._changed)
                with suppress(errors.Error, OSError, BrokerUnavailable):
                    await self._leave(link, source)
            self._on_close(self)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")

    def _own(self, link: Link, messages: Sequence[Message]) -> list[_Receipt]:
        """The receipts that are not stale, as far as is known without asking."""
        if link is not self._link:
            return []
        return [message.receipt for message in messages if message.receipt.origin == self._origin]

    async def _make_sure(self, link: Link, since: float) -> None:
        """Make all receipts stale if the group was made anew after `since`, when the first of their messages came:
        there their numbers stand for other messages. Raises BrokerUnavailable."""
        now = asyncio.get_running_loop().time()
        if now - max(since, self._sure_at) < SURE_S:
            return
        try:
            made = await self._look_up_group()
        except BrokerUnavailable:
            raise
        except BrokerError:  # it is gone
            made = ""
        self._check_open()
        if link is not self._link or not link.up:
            raise BrokerUnavailable("connection lost")
        self._sure_at = now
        if made != self._origin.made:
            self._origin = _Origin(self._origin.inbox, made)
            self._return_all(link)

    async def _leave(self, link: Link, source: Source) -> None:
        """Draining comes first: a message returned while the server still has a pull of ours comes straight back."""
        drained = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await source.drain()  # type: ignore[no-untyped-call]
                    drained = True
                    self._return_all(link)
        finally:
            if not drained:  # nats-py's reader dies of the answer to a flush that was cut off
                link.break_off("the server did not answer")

    def _receive(self, message: Msg) -> None:
        if message.reply.startswith("$JS.ACK."):
            self._buffer.append((message, asyncio.get_running_loop().time()))
            self._behind = messages_behind(message.reply)
            if self._behind == 0 or len(self._buffer) >= self._enough:
                self._changed.set()
        elif message.subject == self._pull_reply:
            self._pull_status = status(message)
            self._changed.set()

    async def _pull(self, link: Link, max_messages: int, max_bytes: int, deadline: float) -> None:
        """Ask for what is there.

        The server sends nothing of a message above `max_bytes`; `_pull_next` asks for such a one.
        """
        self._request(link, {"batch": max_messages, "max_bytes": max_bytes, "no_wait": True}, max_messages)
        await self._settle(link, deadline)

    async def _pull_next(self, link: Link, timeout_s: float) -> None:
        """Wait for one message, of any size."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        self._request(link, {"batch": 1, "expires": round(timeout_s * 1e9)}, 1)
        await self._settle(link, deadline)
        if self._pull_status not in ("", "408"):  # not timed out but refused, which would go on at full speed
            await asyncio.sleep(min(timeout_s, RETRY_S))

    def _request(self, link: Link, pull: dict[str, object], messages: int) -> None:
        self._pull_reply = f"{self._origin.inbox}.{next(self._pulls)}"
        self._pull_status = ""
        self._enough = len(self._buffer) + messages
        self._changed.clear()
        link.send(self._pull_subject, msgspec.json.encode(pull), self._pull_reply)

    async def _settle(self, link: Link, deadline: float) -> None:
        """Wait until the pull is answered, or for `deadline`; a later answer is kept for the next fetch."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._changed.wait()
        self._check_open()
        if not link.up:
            raise BrokerUnavailable("connection lost")
        if self._pull_status == NO_RESPONDERS:
            raise BrokerUnavailable("the server does not have the topic or the group, or is still starting")

    def _take(self, max_messages: int, max_bytes: int, due: float) -> list[Message]:
        messages: list[Message] = []
        size_bytes = 0
        while self._buffer and len(messages) < max_messages and size_bytes < max_bytes:
            message, came_at = self._buffer.popleft()
            self._held[message.reply] = due
            messages.append(Message(message.data, _Receipt(self._origin, message.reply, came_at)))
            size_bytes += len(message.data)
        return messages

    def _forget_redelivered(self, now: float) -> None:
        while self._held and next(iter(self._held.values())) < now:
            self._held.popitem(last=False)

    def _return_all(self, link: Link) -> None:
        """Tell the server that nothing delivered so far will be acknowledged.

        To return what an earlier connection delivered is safe even if the stream was made anew since: at worst a
        message comes twice.
        """
        replies = [*self._held, *(message.reply for message, _ in self._buffer)]
        self._held.clear()
        self._buffer.clear()
        for reply in replies:
            link.send(reply, b"-NAK")


def messages_behind(reply: str) -> int:
    """The last field of `$JS.ACK.<stream>.<durable>.<deliveries>.<stream sequence>.<sequence>.<time>.<pending>`, which
    in its newer form has domain and account before the stream and may have a further field behind."""
    tokens = reply.split(".")
    return int(tokens[8 if len(tokens) == 9 else 10])
