"""Dead letters, by hand: list them, and send them again once what was wrong is put right."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from brokers.base import Broker, Message, Subscription
from core.batches import decode, encode
from core.errors import MalformedBatch
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

    @property
    def read(self) -> int:
        return self.sent + self.cut + self.expired + self.back + self.unreadable


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
    that it came from, or to the first if that is read no more; and remove them.

    Cut ones stay. Expired ones stay too unless `expired`: they then go under a new identity and may count twice. One
    that comes back as a dead letter stays: what was wrong with it still is. A letter is removed only after its message
    was confirmed. At most MOST_LETTERS are read. Raises BrokerError, after which a further call goes on.
    """
    topics = topics or [topic]
    redriven = Redriven()
    sent: set[str] = set()
    async with _member(broker, topic) as subscription:
        async for message in _messages(subscription):
            try:
                letter = unearth(message.body)
            except MalformedBatch:
                redriven.unreadable += 1
                continue
            if letter.sha256 in sent:
                redriven.back += 1
            elif letter.cut:
                redriven.cut += 1
            elif letter.reason == "expired" and not expired:
                redriven.expired += 1
            else:
                body = _under_a_new_identity(letter.body()) if letter.reason == "expired" else letter.body()
                await broker.publish(letter.topic if letter.topic in topics else topics[0], body, PUBLISH_TIMEOUT_S)
                await subscription.acknowledge([message])
                sent.add(letter.sha256)
                redriven.sent += 1
    return redriven


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
