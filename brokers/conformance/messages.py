"""Messages move, once to each group and again when they must. The server stays up."""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest

from brokers.base import Broker, Subscription
from brokers.conformance.harness import SOON_S, Harness, bodies, fresh, numbered, persistently, take
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, MessageTooLarge

TIMEOUT_S = 10.0


async def test_round_trip(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    body = bytes(range(256))

    await broker.publish(topic, body, TIMEOUT_S)
    messages = await reader.fetch(10, 2**20, SOON_S)
    await reader.acknowledge(messages)

    assert bodies(messages) == [body]
    assert await reader.fetch(10, 2**20, 0.2) == []


async def test_an_empty_body_is_a_message(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"", TIMEOUT_S)
    assert bodies(await take(reader, 1)) == [b""]


async def test_equal_bodies_are_several_messages(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for _ in range(3):
        await broker.publish(topic, b"same", TIMEOUT_S)
    assert bodies(await take(reader, 3)) == [b"same"] * 3


@pytest.mark.features(at_most_once=False)
async def test_what_is_published_before_any_consumer_exists_is_found_by_every_group(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["first", "second"])
    for body in numbered(20):
        await broker.publish(topic, body, TIMEOUT_S)

    for group in ("first", "second"):
        assert bodies(await take(await broker.subscribe(topic, group), 20)) == numbered(20)


async def test_topics_are_apart(harness: Harness) -> None:
    broker, topic, other = await harness.broker(), fresh(), fresh()
    await broker.ensure(topic, ["readers"])
    await broker.ensure(other, ["readers"])
    await broker.publish(other, b"other", TIMEOUT_S)
    assert await (await broker.subscribe(topic, "readers")).fetch(10, 2**20, 0.2) == []


async def test_members_of_a_group_share(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    members = [await broker.subscribe(topic, "readers") for _ in range(2)]
    for body in numbered(100):
        await broker.publish(topic, body, TIMEOUT_S)

    shares: list[list[bytes]] = [[], []]
    async with asyncio.timeout(SOON_S):
        while sum(map(len, shares)) < 100:
            for member, share in zip(members, shares, strict=True):
                messages = await member.fetch(10, 2**20, 0.2)
                await member.acknowledge(messages)
                share += bodies(messages)

    assert all(shares)
    assert sorted(chain(*shares)) == numbered(100)
    assert [await member.fetch(1, 1, 0.2) for member in members] == [[], []]


@pytest.mark.features(at_most_once=False)
async def test_every_waiting_member_gets_a_message(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    members = [await broker.subscribe(topic, "readers") for _ in range(3)]
    waiting = [asyncio.create_task(member.fetch(1, 2**20, SOON_S)) for member in members]
    await asyncio.sleep(0.05)
    for body in numbered(3):
        await broker.publish(topic, body, TIMEOUT_S)
    fetched = await asyncio.gather(*waiting)
    assert bodies(chain.from_iterable(fetched)) == numbered(3)


async def test_a_waiting_fetch_ends_with_the_first_message(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    waiting = asyncio.create_task(reader.fetch(100, 2**20, 60.0))
    await asyncio.sleep(0.1)
    await broker.publish(topic, b"first", TIMEOUT_S)
    async with asyncio.timeout(SOON_S):
        assert bodies(await waiting) == [b"first"]


async def test_a_fetch_with_nothing_there_ends_in_time_and_empty(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    clock = asyncio.get_running_loop().time
    started = clock()
    assert await reader.fetch(10, 2**20, 0.3) == []
    assert 0.29 <= clock() - started < 4.0


async def test_a_fetch_keeps_to_its_bounds(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    sent = [bytes([number]) * 1000 for number in range(12)]
    for body in sent:
        await broker.publish(topic, body, TIMEOUT_S)

    by_number = await reader.fetch(3, 2**20, SOON_S)
    by_bytes = await reader.fetch(100, 2500, SOON_S)
    alone = await reader.fetch(100, 1, SOON_S)
    rest = await take(reader, 12 - len(by_number) - len(by_bytes) - len(alone))

    assert 1 <= len(by_number) <= 3
    assert 1 <= len(by_bytes) <= 3
    assert len(alone) == 1
    assert bodies([*by_number, *by_bytes, *alone, *rest]) == sent


@pytest.mark.features(at_most_once=False)
async def test_an_unacknowledged_message_comes_again(harness: Harness) -> None:
    broker, topic = await harness.broker(redeliver_after_s=0.5), fresh()
    await broker.ensure(topic, ["readers"])
    silent = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"again", TIMEOUT_S)
    clock = asyncio.get_running_loop().time
    started = clock()
    assert bodies(await take(silent, 1)) == [b"again"]

    other = await broker.subscribe(topic, "readers")
    again = await take(other, 1)
    assert bodies(again) == [b"again"]
    assert clock() - started >= 0.45

    async with asyncio.timeout(SOON_S):
        while again:  # once more, should the machine have stalled before it was acknowledged
            await other.acknowledge(again)
            again = await other.fetch(1, 2**20, 1.0)


async def test_an_extended_message_does_not_come_again_meanwhile(harness: Harness) -> None:
    broker, topic = await harness.broker(redeliver_after_s=3.0), fresh()
    await broker.ensure(topic, ["readers"])
    busy = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"long work", TIMEOUT_S)
    messages = await take(busy, 1)

    async def work() -> None:
        for _ in range(12):
            await asyncio.sleep(0.3)
            await busy.extend(messages)
        await busy.acknowledge(messages)

    working = asyncio.create_task(work())
    other = await broker.subscribe(topic, "readers")
    assert await other.fetch(1, 2**20, 4.0) == []
    await working


@pytest.mark.features(at_most_once=False)
async def test_a_message_comes_a_hundred_times_and_more(harness: Harness) -> None:
    broker, topic = await harness.broker(redeliver_after_s=0.02), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"again", TIMEOUT_S)
    for _ in range(101):
        messages = await take(reader, 1)
        assert bodies(messages) == [b"again"]


@pytest.mark.features(at_most_once=False)
async def test_a_closed_member_returns_what_it_held(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    for body in numbered(50):
        await broker.publish(topic, body, TIMEOUT_S)
    leaving = await broker.subscribe(topic, "readers")
    done = await take(leaving, 10)
    await leaving.acknowledge(done)
    await take(leaving, 20)
    await leaving.close()

    rest = await take(await broker.subscribe(topic, "readers"), 40)

    assert bodies([*done, *rest]) == numbered(50)


async def test_a_member_that_closes_while_it_waits_takes_nothing_along(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    leaving, staying = [await broker.subscribe(topic, "readers") for _ in range(2)]
    waiting = asyncio.create_task(leaving.fetch(10, 2**20, 60.0))
    await asyncio.sleep(0.1)
    await leaving.close()
    with pytest.raises(BrokerUnavailable):
        await waiting
    await broker.publish(topic, b"for the other", TIMEOUT_S)
    assert bodies(await take(staying, 1)) == [b"for the other"]


@pytest.mark.features(at_most_once=False)
async def test_an_acknowledgement_after_a_close_does_no_harm(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    leaving = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"mine", TIMEOUT_S)
    stale = await take(leaving, 1)
    await leaving.close()
    with pytest.raises(BrokerUnavailable):
        await leaving.acknowledge(stale)
    assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [b"mine"]


async def test_an_acknowledgement_twice_does_no_harm(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(2):
        await broker.publish(topic, body, TIMEOUT_S)
    first = await take(reader, 1)
    await reader.acknowledge(first)
    await reader.acknowledge(first)
    assert bodies([*first, *await take(reader, 1)]) == numbered(2)


async def _filled(broker: Broker, topic: str, *, most: int) -> int:
    """How many more it takes before it refuses one: a broker that looks at its bound from time to time takes a few."""
    for stored in range(most):
        try:
            await broker.publish(topic, bytes(1024), TIMEOUT_S)
        except BrokerFull:
            return stored
    pytest.fail(f"took {most} messages beyond its bound")


@pytest.mark.features(refuses_when_full=True)
async def test_a_full_topic_refuses_until_every_group_has_acknowledged(harness: Harness) -> None:
    broker, topic = await harness.broker(max_topic_bytes=64 * 1024), fresh()
    await broker.ensure(topic, ["first", "second"])
    outcomes = await asyncio.gather(
        *(broker.publish(topic, bytes(1024), TIMEOUT_S) for _ in range(65)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} <= {type(None), BrokerFull}
    stored = outcomes.count(None)
    assert stored > 32
    stored += await _filled(broker, topic, most=64)

    for group in ("first", "second"):
        with pytest.raises(BrokerFull):
            await broker.publish(topic, bytes(1024), TIMEOUT_S)
        reader = await broker.subscribe(topic, group)
        messages = await take(reader, stored)
        assert len(messages) == stored
        await reader.acknowledge(messages)
    await persistently(lambda: broker.publish(topic, bytes(1024), TIMEOUT_S))


async def test_the_largest_message_and_one_byte_more(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    largest = b"x" * broker.features.max_message_bytes
    with pytest.raises(MessageTooLarge):
        await broker.publish(topic, largest + b"x", TIMEOUT_S)
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, largest, TIMEOUT_S)
    assert bodies(await take(reader, 1)) == [largest]


async def test_ten_thousand_messages_at_once(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    sent = numbered(10_000)

    async def read() -> list[bytes]:
        found: list[bytes] = []
        while len(found) < len(sent):
            messages = await reader.fetch(500, 2**20, SOON_S)
            assert messages
            found += bodies(messages)
            await reader.acknowledge(messages)
        return found

    reading = asyncio.create_task(read())
    await asyncio.gather(*(broker.publish(topic, body, 30.0) for body in sent))
    assert sorted(await reading) == sent


async def test_a_cancelled_publish_abandons_the_wait_only(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    cancelled = [asyncio.create_task(broker.publish(topic, b"maybe", TIMEOUT_S)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in cancelled:
        task.cancel()
    results = await asyncio.gather(*cancelled, return_exceptions=True)
    assert {type(result) for result in results} <= {asyncio.CancelledError, type(None)}

    await broker.publish(topic, b"surely", TIMEOUT_S)
    found: list[bytes] = []
    async with asyncio.timeout(SOON_S):
        while b"surely" not in found:
            found += bodies(await take(reader, 1))
    found += bodies(await take(reader, 20, 0.5))
    assert [body for body in found if body != b"maybe"] == [b"surely"]


async def test_a_cancelled_fetch_loses_nothing(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    found: list[bytes] = []
    for number, body in enumerate(numbered(60)):
        fetching = asyncio.create_task(reader.fetch(10, 2**20, SOON_S))
        await asyncio.sleep(0)
        await broker.publish(topic, body, TIMEOUT_S)
        await asyncio.sleep(number % 6 / 5000)
        fetching.cancel()
        for outcome in await asyncio.gather(fetching, return_exceptions=True):
            if isinstance(outcome, list):
                found += bodies(outcome)
            else:
                assert isinstance(outcome, asyncio.CancelledError)
    found += bodies(await take(reader, 60 - len(found)))
    assert sorted(found) == numbered(60)


@pytest.mark.features(at_most_once=False)
async def test_what_a_cancelled_fetch_got_is_returned_by_close(harness: Harness) -> None:
    """At once or, what was still on its way to the member that left, after the redelivery time."""
    broker, topic = await harness.broker(redeliver_after_s=2.0), fresh()
    await broker.ensure(topic, ["readers"])
    leaving = await broker.subscribe(topic, "readers")
    for body in numbered(200):
        await broker.publish(topic, body, TIMEOUT_S)
    fetching = asyncio.create_task(leaving.fetch(100, 2**20, SOON_S))
    await asyncio.sleep(0)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    await leaving.close()
    reader = await broker.subscribe(topic, "readers")
    found: set[bytes] = set()
    async with asyncio.timeout(SOON_S):
        while len(found) < 200:
            messages = await reader.fetch(200, 2**20, 1.0)
            found.update(message.body for message in messages)
            await reader.acknowledge(messages)
    assert sorted(found) == numbered(200)


@pytest.mark.features(at_most_once=False)
async def test_to_ensure_again_changes_nothing(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["first"])
    await broker.publish(topic, b"kept", TIMEOUT_S)
    await asyncio.gather(*(broker.ensure(topic, ["first"]) for _ in range(3)))
    await broker.ensure(topic, ["second"])
    await broker.publish(topic, b"later", TIMEOUT_S)

    assert bodies(await take(await broker.subscribe(topic, "first"), 2)) == [b"kept", b"later"]
    expected = [b"kept", b"later"] if broker.features.replays else [b"later"]
    assert bodies(await take(await broker.subscribe(topic, "second"), len(expected))) == expected


@pytest.mark.features(at_most_once=False)
async def test_a_group_that_comes_later_gets_what_is_published_from_then_on(harness: Harness) -> None:
    """And what the topic still holds, where `replays` says so."""
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["first"])
    await broker.publish(topic, b"before", TIMEOUT_S)
    await broker.ensure(topic, ["second"])
    await broker.publish(topic, b"after", TIMEOUT_S)
    reader = await broker.subscribe(topic, "second")
    expected = [b"after", b"before"] if broker.features.replays else [b"after"]
    assert bodies(await take(reader, len(expected))) == expected
    assert await reader.fetch(1, 2**20, 0.3) == []


@pytest.mark.features(at_most_once=False)
async def test_a_group_that_was_not_ensured_is_refused(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    with pytest.raises(BrokerError):
        await broker.subscribe(topic, "strangers")


async def test_close_ends_all_that_is_under_way(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    under_way = [asyncio.create_task(broker.publish(topic, body, 60.0)) for body in numbered(200)]
    under_way.append(asyncio.create_task(broker.ensure(topic, ["more"])))
    fetching = asyncio.create_task(_fetch_for_ever(reader))
    await asyncio.sleep(0.01)

    async with asyncio.timeout(SOON_S):
        await asyncio.gather(broker.close(), reader.close(), broker.close(), broker.close())
        results = await asyncio.gather(*under_way, fetching, return_exceptions=True)

    assert {type(result) for result in results} <= {type(None), BrokerUnavailable}
    assert isinstance(results[-1], BrokerUnavailable)


async def _fetch_for_ever(reader: Subscription) -> None:
    while True:
        await reader.fetch(10, 2**20, 60.0)


async def test_after_close_every_call_is_refused_and_close_is_not(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await broker.close()
    await broker.close()
    await reader.close()

    assert not broker.connected
    for refused in (
        broker.publish(topic, b"late", TIMEOUT_S),
        broker.ensure(topic, ["readers"]),
        broker.subscribe(topic, "readers"),
        reader.fetch(1, 1, TIMEOUT_S),
    ):
        with pytest.raises(BrokerUnavailable):
            await refused


async def test_a_broker_may_be_closed_before_it_is_started(harness: Harness) -> None:
    broker = harness.make()
    await broker.close()
    assert not broker.connected
