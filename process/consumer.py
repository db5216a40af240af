"""The consumer: a member of the counting group. What it fetches is folded into the store; what cannot be counted
becomes a dead letter, and holds up nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import structlog
from prometheus_client.core import Metric

from brokers.base import Broker, Message
from core import counting
from core.counting import Dead
from core.errors import BrokerError, StoreRefused
from core.letters import GROUP as REDRIVE
from core.letters import Reason, bury, dead_topic
from core.patience import Patience
from core.store import Store
from core.telemetry import counter
from core.work import Work
from process.membership import Membership
from process.reader import Fetched, Reading

log = structlog.get_logger()

PUBLISH_TIMEOUT_S: Final = 5.0


class Consumer(Membership):
    """A membership that counts into `store`. Its dead letters go to one topic, that of `topic`, whichever topics it
    reads; without `reading` that is `topic` itself."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        *,
        topic: str,
        oldest_allowed_s: float,
        reading: Reading | None = None,
        work: Work | None = None,
    ) -> None:
        patience = Patience()
        super().__init__(
            broker,
            Counting(broker, store, dead_topic(topic), patience),
            reading or Reading([topic], [counting.GROUP], counting.GROUP),
            patience,
            oldest_allowed_s=oldest_allowed_s,
            work=work or Work(0.0, 1),
        )


class Counting:
    """The sink that counts."""

    def __init__(self, broker: Broker, store: Store, letters_to: str, patience: Patience) -> None:
        self._broker = broker
        self._store = store
        self._letters_to = letters_to
        self._patience = patience
        self._tally = counting.Tally()
        self._dead = 0
        self._unburied: str | None = None
        """Why a dead letter could not be written, when it was last tried."""

    async def prepare(self) -> None:
        await self._store.start()
        await self._broker.ensure(self._letters_to, [REDRIVE])

    async def settle(self, topic: str, fetched: Fetched) -> list[Message]:
        """What can be counted is, first: a dead-letter topic that takes nothing in must not hold it up."""
        settled = await self._count(topic, fetched) if fetched.batches else []
        for message, error in fetched.malformed:
            if await self._bury(topic, message.body, "malformed", error):
                settled.append(message)
        return settled

    def check(self) -> str:
        return f"a dead letter waits to be written: {self._unburied}" if self._unburied else ""

    def metrics(self) -> Iterator[Metric]:
        yield from self._tally.metrics()
        yield counter("fanrate_dead_letters", "Messages written to the dead letters", self._dead)

    async def _count(self, topic: str, fetched: Fetched) -> list[Message]:
        outcome = await self._patience.until_done(
            "the store", lambda: counting.count(self._store, (batch for batch, _ in fetched.batches))
        )
        if outcome is None:
            return []
        self._tally.add(outcome)
        if not outcome.dead:
            return [message for _, message in fetched.batches]
        unburied = await self._bury_batches(topic, fetched, outcome.dead)
        return [message for batch, message in fetched.batches if (batch.producer, batch.sequence) not in unburied]

    async def _bury_batches(self, topic: str, fetched: Fetched, dead: Sequence[Dead]) -> set[tuple[str, int]]:
        """The identities of those of which the dead letter, or its being settled, was not written."""
        bodies = {(batch.producer, batch.sequence): message.body for batch, message in fetched.batches}
        unburied = set()
        for each in dead:
            identity = each.batch.producer, each.batch.sequence
            if not await self._bury_batch(topic, each, bodies[identity]):
                unburied.add(identity)
        return unburied

    async def _bury_batch(self, topic: str, dead: Dead, body: bytes) -> bool:
        """The dead letter first, then settled: a batch is never neither. A store that refuses even to settle it leaves
        `opened` too high by the batch, which is told; it must not hold up the others."""
        if not await self._bury(topic, body, dead.reason, dead.error):
            return False
        try:
            return await self._patience.done("the store", lambda: self._store.settle([dead.batch]))
        except StoreRefused as exc:
            log.error("not_settled", producer=dead.batch.producer, rates=len(dead.batch.rates), error=str(exc))
            return True

    async def _bury(self, topic: str, body: bytes, reason: Reason, error: str) -> bool:
        """Write a dead letter; False if the broker does not take it now, and the message is to come again."""
        letter = bury(body, topic, reason, error, max_message_bytes=self._broker.features.max_message_bytes)
        try:
            await self._broker.publish(self._letters_to, letter, PUBLISH_TIMEOUT_S)
        except BrokerError as exc:
            if not self._unburied:
                log.error("dead_letter_not_written", reason=reason, error=str(exc))
            self._unburied = str(exc)
            return False
        self._unburied = None
        self._dead += 1
        log.error("dead_letter", topic=topic, reason=reason, error=error, bytes=len(body))
        return True
