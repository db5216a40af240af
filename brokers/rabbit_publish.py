"""Publishing to one topic of RabbitMQ, with confirms, on a channel of its own: the server closes a channel whose
exchange is gone, and with it ends only what was sent to that topic."""

from __future__ import annotations

import asyncio
import itertools
import re

from pamqp import commands

from brokers import rabbit_wire as wire
from brokers.rabbit_channel import PRECONDITION_FAILED, Channel, Line
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, MessageTooLarge

_TOO_LARGE = re.compile(r"message size \d+ .*max size (\d+)")


class Publisher(Channel):
    """Publishes to the exchange `topic`. Opening it takes no answer: the first message follows at once."""

    def __init__(self, link: Line, topic: str, delivery_mode: int) -> None:
        super().__init__(link)
        self.max_message_bytes: int | None = None
        """The server's own limit, once it has told it."""
        self.refused = False
        """Whether a queue refused a message. Nothing more should be published here: to a channel whose first message
        found the leader of a quorum queue on a node that is down, RabbitMQ 3.10 refuses all until that node is back."""
        self._retired = False
        self._delivery_mode = delivery_mode
        self._request = wire.encode(self.number, commands.Basic.Publish(exchange=topic, routing_key="", mandatory=True))
        self._tags = itertools.count(1)
        self._unconfirmed: dict[int, tuple[asyncio.Future[None], int]] = {}
        """Tag -> who waits, and the size of the body in bytes; oldest first."""
        self.send(commands.Channel.Open(), commands.Confirm.Select())

    async def publish(self, body: bytes) -> None:
        """Return when the server has confirmed; raises BrokerUnavailable, BrokerFull, MessageTooLarge."""
        await self._link.room()
        if self.error is not None:
            raise BrokerUnavailable(str(self.error))
        tag = next(self._tags)
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unconfirmed[tag] = confirmed, len(body)
        self._link.write(
            self._request + wire.content(self.number, body, self._delivery_mode, self._link.max_frame_bytes)
        )
        try:
            await confirmed
        finally:
            self._unconfirmed.pop(tag, None)
            self._close_if_done()

    def retire(self) -> None:
        """Close once what was published is confirmed or refused; no publish may follow."""
        self._retired = True
        self._close_if_done()

    def on_method(self, name: bytes, payload: bytes) -> None:
        if name == wire.BASIC_ACK:
            for confirmed in self._confirmed_by(payload):
                confirmed.set_result(None)
        elif name == wire.BASIC_NACK:
            self.refused = True
            for confirmed in self._confirmed_by(payload):
                confirmed.set_exception(BrokerFull("the queue of a group takes no more"))
        elif name != wire.BASIC_RETURN:
            super().on_method(name, payload)

    def on_content(self, method: bytes, body: bytes) -> None:
        """A returned message. Which one it was does not matter: none before it can have reached a group either."""
        self._refuse(BrokerUnavailable("no group reads this topic any more"))

    def on_block(self, reason: str) -> None:
        self._refuse(BrokerFull(reason))

    def on_close(self, code: int, text: str) -> None:
        """Whatever the cause, such as a topic that is gone, to ensure the topic again may help; but not with a message
        that is too large."""
        found = _TOO_LARGE.search(text) if code == PRECONDITION_FAILED else None
        if found is not None:
            self.max_message_bytes = int(found[1])
            for confirmed, size_bytes in self._unconfirmed.values():
                if size_bytes > self.max_message_bytes and not confirmed.done():
                    confirmed.set_exception(MessageTooLarge(text))
        self.fail(BrokerUnavailable(text))

    def fail(self, error: BrokerError) -> None:
        super().fail(error)
        self._refuse(error)

    def _close_if_done(self) -> None:
        if self._retired and not self._unconfirmed and self.error is None:
            self.error = BrokerUnavailable("another channel publishes now")
            self.close()

    def _refuse(self, error: BrokerError) -> None:
        for confirmed, _ in self._unconfirmed.values():
            if not confirmed.done():
                confirmed.set_exception(error)
        self._unconfirmed.clear()

    def _confirmed_by(self, payload: bytes) -> list[asyncio.Future[None]]:
        """Who waits for what this answer is about; nobody, if they gave up before."""
        tag, multiple = wire.confirm(payload)
        tags = list(itertools.takewhile(lambda each: each <= tag, self._unconfirmed)) if multiple else [tag]
        found = (self._unconfirmed.pop(each, None) for each in tags)
        return [entry[0] for entry in found if entry is not None and not entry[0].done()]
