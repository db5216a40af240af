"""Dead letters, by hand: list them, and send them again once what was wrong is put right."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Final

import msgspec

from brokers.base import Broker, Message, Subscription
from core.batches import decode, encode
from core.errors import BrokerFull, MalformedBatch, MessageTooLarge
from core.letters import GROUP, DeadLetter, bury, dead_topic, unearth

FETCH_MESSAGES: Final = 256
FETCH_BYTES: Final = 8 * 2**20
QUIET_S = 2.0
"""No further letter for this long means that there are no more."""
PUBLISH_TIMEOUT_S: Final = 10.0
MOST_LETTERS: Final = 8_000
"""Read at one time: what a broker hands out unacknowledged is bounded."""


@dataclass(slots=True)
class Redriven:
    """How many letters went which way."""

    sent: int = 0
    cut: int = 0
    expired: int = 0
    back: int = 0
    """Became dead letters again while this went on, or equal one that was sent."""
    unreadable: int = 0
    """Not dead letters: somebody else wrote to their topic."""
    elsewhere: int = 0
    """From topics that are not among those given."""
    renamed: int = 0
    """Of those sent: expired, and now under a new identity."""
    met_again: int = 0
    """Of those that stay: written anew, and then read too."""

    @property
    def read(self) -> int:
        return self.sent + self.left + self.met_again

    @property
    def left(self) -> int:
        return self.cut + self.expired + self.back + self.unreadable + self.elsewhere


async def letters(broker: Broker, topic: str) -> AsyncIterator[DeadLetter]:
    """The first MOST_LETTERS dead letters of `topic`, oldest first, which stay where they are. What is no dead letter
    is told as a malformed one. Raises BrokerError if there is no such topic."""
    async with _member(broker, topic) as subscription:
        async for message in _messages(subscription):
            try:
                yield unearth(message.body)
            except MalformedBatch as exc:
                limit = broker.features.max_message_bytes
                yield unearth(bury(message.body, dead_topic(topic), "malformed", str(exc), max_message_bytes=limit))


async def redrive(broker: Broker, topic: str, *, expired: bool, topics: Sequence[str] = ()) -> Redriven:
    """Publish the dead letters of `topic` again as they were, each to the one of `topics` (by default `topic` alone)
    that it came from, and remove them.

    Those of other topics stay, for nobody may read there. Cut ones stay. Expired ones stay too unless `expired`: they
    then go under a new identity and may count twice. One that comes back as a dead letter stays: what was wrong with it
    still is. A letter is removed only after its message was confirmed. At most MOST_LETTERS are read. Raises
    BrokerError, after which a further call goes on.
    """
    async with _member(broker, topic) as subscription:
        redrive = _Redrive(broker, subscription, topic, topics or [topic], expired)
        async for message in _messages(subscription):
            await redrive.see_to(message)
    return redrive.done


class _Redrive:
    """One call of `redrive`.

    What stays is written anew and then removed too: where a broker remembers only how far a group has read, one left in
    its place would make all those behind it come again.
    """

    def __init__(
        self, broker: Broker, subscription: Subscription, topic: str, topics: Sequence[str], expired: bool
    ) -> None:
        self.done = Redriven()
        self._broker = broker
        self._subscription = subscription
        self._letters = dead_topic(topic)
        self._topics = topics
        self._expired = expired
        self._sent: set[str] = set()
        """The `sha256` of letters."""
        self._written_anew: set[bytes] = set()
        """Digests of whole letters."""

    async def see_to(self, message: Message) -> None:
        digest = sha256(message.body).digest()
        if digest in self._written_anew:
            self.done.met_again += 1
            return
        letter = self._to_send(message.body)
        if letter is None:
            await self._write_anew(message, digest)
            return
        body = _under_a_new_identity(letter.body()) if letter.reason == "expired" else letter.body()
        await self._broker.publish(letter.topic, body, PUBLISH_TIMEOUT_S)
        await self._subscription.acknowledge([message])
        self._sent.add(letter.sha256)
        self.done.sent += 1
        self.done.renamed += letter.reason == "expired"

    def _to_send(self, encoded: bytes) -> DeadLetter | None:
        """The letter in `encoded`, unless it stays, which is counted."""
        try:
            letter = unearth(encoded)
        except MalformedBatch:
            self.done.unreadable += 1
            return None
        if letter.sha256 in self._sent:
            self.done.back += 1
        elif letter.cut:
            self.done.cut += 1
        elif letter.reason == "expired" and not self._expired:
            self.done.expired += 1
        elif letter.topic not in self._topics:
            self.done.elsewhere += 1
        else:
            return letter
        return None

    async def _write_anew(self, message: Message, digest: bytes) -> None:
        """Where there is no room for it, it is left in its place."""
        try:
            await self._broker.publish(self._letters, message.body, PUBLISH_TIMEOUT_S)
        except (BrokerFull, MessageTooLarge):
            return
        self._written_anew.add(digest)
        await self._subscription.acknowledge([message])


def _under_a_new_identity(body: bytes) -> bytes:
    """The same for each letter of one batch, so that two letters of it count once."""
    batch = decode(body)
    producer = blake2b(f"redriven {batch.producer} {batch.sequence}".encode(), digest_size=16).hexdigest()
    return encode(
        msgspec.structs.replace(batch, producer=producer, sequence=0, opened=len(batch.rates), at=time.time())
    )


@asynccontextmanager
async def _member(broker: Broker, topic: str) -> AsyncIterator[Subscription]:
    subscription = await broker.subscribe(dead_topic(topic), GROUP)
    try:
        yield subscription
    finally:
        await subscription.close()


async def _messages(subscription: Subscription) -> AsyncIterator[Message]:
    read = 0
    while read < MOST_LETTERS:
        messages = await subscription.fetch(min(FETCH_MESSAGES, MOST_LETTERS - read), FETCH_BYTES, QUIET_S)
        if not messages:
            return
        read += len(messages)
        for message in messages:
            yield message
