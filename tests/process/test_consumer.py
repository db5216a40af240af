"""What becomes of messages that cannot be counted; in memory, where every broker is alike."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import msgspec
import pytest

import process.membership
import process.reader
from brokers.memory import MemoryBroker
from core import counting
from core.batches import Batch, encode
from core.errors import BrokerFull, StoreRefused, StoreUnavailable
from core.fold import Fold
from core.letters import dead_topic
from core.lifecycle import until
from core.store import Applied, Lease, Opened
from process.consumer import Consumer
from process.redrive import letters, redrive
from store.memory import MemoryStore


class MoodyStore(MemoryStore):
    """Away for as long as `away` is set, silent for as long as `answering` is not; refuses any fold that holds the
    subject `poison` and, with `settles` unset, to settle what is dead."""

    def __init__(self) -> None:
        super().__init__(horizon_s=60, idempotency_s=60)
        self.away = False
        self.poison = "poison"
        self.settles = True
        self.answering = asyncio.Event()
        self.answering.set()

    async def apply(self, fold: Fold) -> Applied:
        await self.answering.wait()
        if self.away:
            raise StoreUnavailable("away")
        if self.poison in fold.counts:
            raise StoreRefused("poisoned")
        return await super().apply(fold)

    async def settle(self, batches: Sequence[Batch]) -> None:
        if not self.settles:
            raise StoreRefused("a producer holds no numbers")
        await super().settle(batches)


class MoodyBroker(MemoryBroker):
    """Has no room for dead letters while `dead_full` is set. What is not acknowledged comes again in three seconds."""

    def __init__(self) -> None:
        super().__init__(max_message_bytes=4096, redeliver_after_s=3.0)
        self.dead_full = False

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if self.dead_full and topic == dead_topic("rates"):
            raise BrokerFull("of dead letters")
        await super().publish(topic, body, timeout_s)


class Setting:
    """A consumer with its broker and store."""

    def __init__(self) -> None:
        self.broker = MoodyBroker()
        self.store = MoodyStore()
        self.consumer = self.another()

    def another(self) -> Consumer:
        return Consumer(self.broker, self.store, topic="rates", oldest_allowed_s=30)

    async def publish(self, *bodies: bytes) -> None:
        await self.broker.ensure("rates", [counting.GROUP])
        for body in bodies:
            await self.broker.publish("rates", body, 1)

    async def has_counted(self, count: int) -> None:
        """Wait until `count` rates are counted."""
        for _ in range(500):
            if (await self.store.totals()).count >= count:
                break
            await asyncio.sleep(0.01)
        assert (await self.store.totals()).count == count

    async def counted(self, count: int) -> None:
        """Wait until `count` rates are counted and every message is acknowledged."""
        await self.has_counted(count)
        assert await until(lambda: self.broker.unread("rates", counting.GROUP) == 0, 10)
        assert (await self.store.totals()).count == count

    async def dead(self) -> list[tuple[str, bytes]]:
        return [(letter.reason, letter.body()) async for letter in letters(self.broker, "rates")]


@pytest.fixture
async def setting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setting]:
    monkeypatch.setattr("process.redrive.QUIET_S", 0.05)
    made = Setting()
    await made.consumer.start()
    yield made
    await made.consumer.close()
    await made.broker.close()
    await made.store.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop should turn several times in what is called a hang."""
    monkeypatch.setattr(process.reader, "FETCH_WAIT_S", 0.05)
    monkeypatch.setattr(process.membership, "STALLED_AFTER_S", 0.3)


def batch(subject: str = "film", *, age_s: float = 0.0, rates: int = 1, **changes: object) -> Batch:
    made = Batch(1, 0, uuid4().hex, 0, rates, time.time() - age_s, [(subject, 5)] * rates)
    return msgspec.structs.replace(made, **changes)


async def test_many_batches_are_counted_once(setting: Setting) -> None:
    bodies = [encode(batch(f"film-{number % 7}")) for number in range(600)]
    await setting.publish(*bodies, *bodies[::3])
    await setting.counted(600)


@pytest.mark.parametrize("body", [b"", b"not a batch", b"\xff\xfe", b"{}", b"x" * 4096])
async def test_a_malformed_message_becomes_a_dead_letter(setting: Setting, body: bytes) -> None:
    await setting.publish(encode(batch()), body, encode(batch()))
    await setting.counted(2)
    ((reason, kept),) = await setting.dead()
    assert reason == "malformed"
    assert kept == body or (len(body) == 4096 and body.startswith(kept))


async def test_an_expired_batch_becomes_a_dead_letter_and_settles(setting: Setting) -> None:
    old = batch(age_s=100, rates=3)
    await setting.store.lease([Lease(old.producer, 3, 3)])
    await setting.publish(encode(old), encode(batch()))
    await setting.counted(1)
    assert await setting.dead() == [("expired", encode(old))]
    assert await setting.store.opened() == Opened(0, 0)


async def test_a_batch_that_the_store_refuses_does_not_hold_up_the_others(setting: Setting) -> None:
    culprit = batch("poison")
    await setting.publish(*(encode(batch()) for _ in range(20)), encode(culprit), *(encode(batch()) for _ in range(20)))
    await setting.counted(40)
    assert await setting.dead() == [("refused", encode(culprit))]


async def test_redrive_counts_what_was_refused_once_the_cause_is_gone(setting: Setting) -> None:
    culprits = [batch("poison", rates=2) for _ in range(3)]
    await setting.store.lease([Lease(each.producer, 2, 2) for each in culprits])
    await setting.publish(*map(encode, culprits))
    await setting.counted(0)
    assert await setting.store.opened() == Opened(0, 0)
    setting.store.poison = ""
    done = await redrive(setting.broker, "rates", expired=False)
    assert (done.sent, done.cut, done.expired) == (3, 0, 0)
    await setting.counted(6)
    assert await setting.dead() == []
    assert await setting.store.opened() == Opened(0, 0), "settled once, as dead letters"


async def test_redrive_leaves_expired_letters_unless_told(setting: Setting) -> None:
    await setting.publish(encode(batch(age_s=100)))
    await setting.counted(0)
    assert (await redrive(setting.broker, "rates", expired=False)).expired == 1
    assert len(await setting.dead()) == 1
    assert (await redrive(setting.broker, "rates", expired=True)).sent == 1
    await setting.counted(1)
    assert await setting.dead() == []


async def test_redrive_leaves_cut_letters(setting: Setting) -> None:
    await setting.publish(b"x" * 4096)
    await setting.counted(0)
    assert (await redrive(setting.broker, "rates", expired=True)).cut == 1
    assert len(await setting.dead()) == 1


async def test_redrive_ends_when_letters_come_back(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("process.redrive.QUIET_S", 0.3)
    await setting.publish(b"not a batch", b"nor this", encode(batch("poison")))
    await setting.counted(0)
    done = await asyncio.wait_for(redrive(setting.broker, "rates", expired=False), 10)
    assert (done.sent, done.back) == (3, 3)
    assert len(await setting.dead()) == 3


async def test_a_newer_message_stops_the_consumer_red_and_stays(setting: Setting) -> None:
    await setting.publish(json.dumps({"version": 2, "rates": "of another form"}).encode(), encode(batch()))
    assert await until(lambda: "upgrade" in str(setting.consumer.check()), 5)
    assert setting.consumer.alive()["loop"].ok
    assert await setting.dead() == []
    assert setting.broker.unread("rates", counting.GROUP) == 1
    assert (await setting.store.totals()).count == 1
    await setting.publish(encode(batch()))
    await asyncio.sleep(0.1)
    assert setting.broker.unread("rates", counting.GROUP) == 2


async def test_a_store_that_is_away_is_waited_for(setting: Setting) -> None:
    setting.store.away = True
    await setting.publish(*(encode(batch()) for _ in range(10)))
    assert await until(lambda: "away" in str(setting.consumer.check()), 5)
    assert setting.consumer.alive()["loop"].ok
    setting.store.away = False
    await setting.counted(10)
    assert await setting.dead() == []
    assert await until(lambda: setting.consumer.check().ok, 5)


async def test_drain_settles_what_was_fetched_and_returns_the_rest(setting: Setting) -> None:
    setting.store.away = True
    await setting.publish(*(encode(batch()) for _ in range(10)))
    assert await until(lambda: "away" in str(setting.consumer.check()), 5)
    await setting.consumer.drain(1.0)
    assert setting.broker.unread("rates", counting.GROUP) == 10
    setting.store.away = False
    successor = setting.another()
    await successor.start()
    await setting.counted(10)
    await successor.drain(1.0)


async def test_it_is_not_ready_before_it_has_fetched(setting: Setting) -> None:
    second = setting.another()
    assert "has not fetched" in str(second.check())
    assert not second.check().ok
    await second.start()
    assert await until(lambda: second.check().ok, 5)
    await second.drain(1.0)


async def test_old_messages_turn_it_red(setting: Setting) -> None:
    setting.store.answering.clear()
    await setting.publish(encode(batch(age_s=20)))
    assert await until(lambda: setting.consumer.oldest_s() > 19, 5)
    assert setting.consumer.check().ok, "not that old"
    setting.store.answering.set()
    await setting.counted(1)
    setting.store.answering.clear()
    await setting.publish(encode(batch(age_s=40)))
    assert await until(lambda: "message is 40 s old" in str(setting.consumer.check()), 5)
    assert not setting.consumer.check().ok
    setting.store.answering.set()
    await setting.counted(2)
    assert await until(lambda: setting.consumer.check().ok, 5)


async def test_a_loop_that_hangs_is_not_alive(impatient: None, setting: Setting) -> None:
    await asyncio.sleep(0.6)
    assert await until(lambda: setting.consumer.alive()["loop"].ok, 10), "an idle loop turns"
    setting.store.answering.clear()
    await setting.publish(encode(batch()))
    assert await until(lambda: not setting.consumer.alive()["loop"].ok, 5)
    assert "has not turned" in str(setting.consumer.alive()["loop"])
    setting.store.answering.set()
    assert await until(lambda: setting.consumer.alive()["loop"].ok, 5)
    await setting.counted(1)


async def test_a_stop_at_a_newer_message_is_not_a_hang(impatient: None, setting: Setting) -> None:
    """A restart would stop at the same message."""
    await setting.publish(json.dumps({"version": 2}).encode())
    assert await until(lambda: "upgrade" in str(setting.consumer.check()), 5)
    await asyncio.sleep(0.6)
    assert setting.consumer.alive()["loop"].ok
    assert "upgrade" in str(setting.consumer.check())


async def test_a_store_that_refuses_to_settle_does_not_hold_up_the_others(setting: Setting) -> None:
    setting.store.settles = False
    culprits = [batch("poison"), batch(age_s=100)]
    await setting.publish(*map(encode, [batch(), culprits[0], batch(), culprits[1], batch()]))
    await setting.counted(3)
    assert sorted(await setting.dead()) == [("expired", encode(culprits[1])), ("refused", encode(culprits[0]))]
    await setting.publish(encode(batch()))
    await setting.counted(4)


async def test_dead_letters_without_room_do_not_hold_up_the_others(setting: Setting) -> None:
    setting.broker.dead_full = True
    bad = [b"not a batch", encode(batch("poison")), encode(batch(age_s=100))]
    await setting.publish(encode(batch()), bad[0], encode(batch()), bad[1], encode(batch()), bad[2], encode(batch()))
    await setting.has_counted(4)
    await setting.publish(*(encode(batch()) for _ in range(20)))
    await setting.has_counted(24)
    assert await until(lambda: setting.broker.unread("rates", counting.GROUP) == 3, 5), "they wait for room"
    assert "a dead letter waits to be written" in str(setting.consumer.check())
    setting.broker.dead_full = False
    await setting.counted(24)
    assert await until(lambda: setting.consumer.check().ok, 5)
    assert sorted(body for _, body in await setting.dead()) == sorted(bad)


async def test_two_consumers_share(setting: Setting) -> None:
    second = setting.another()
    await second.start()
    await setting.publish(*(encode(batch()) for _ in range(2000)))
    await setting.counted(2000)
    await second.drain(1.0)
