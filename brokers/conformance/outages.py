"""The server dies, freezes, comes back, or was never there; a consumer is killed."""

from __future__ import annotations

import asyncio
import sys
import textwrap

import pytest

from brokers.base import Broker
from brokers.conformance.harness import SOON_S, Harness, bodies, fresh, numbered, persistently, take, until
from core.errors import BrokerUnavailable, PublishTimeout

AT_ONCE_S = 4.0
"""Below the 5 s that an adapter may give its server to answer, too."""
BACK_S = 30.0
"""How long a case waits for a server that was just started, or for another process."""
LONG_S = 60.0


async def test_a_broker_started_before_its_server_connects_by_itself(outage: Harness) -> None:
    outage.server.kill()
    broker, topic = outage.make(), fresh()
    async with asyncio.timeout(AT_ONCE_S):
        await broker.start()
        for refused in (broker.ensure(topic, ["readers"]), broker.publish(topic, b"early", LONG_S)):
            with pytest.raises(BrokerUnavailable):
                await refused
    assert not broker.connected

    outage.server.start()
    await until(lambda: broker.connected, BACK_S)
    await persistently(lambda: broker.ensure(topic, ["readers"]), BACK_S)
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"now", SOON_S)
    assert bodies(await take(reader, 1)) == [b"now"]


async def test_without_a_server_calls_are_refused_at_once(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    outage.server.kill()
    await until(lambda: not broker.connected, AT_ONCE_S)
    async with asyncio.timeout(AT_ONCE_S):
        for refused in (
            broker.publish(topic, b"lost", LONG_S),
            broker.ensure(topic, ["readers"]),
            broker.subscribe(topic, "readers"),
            reader.fetch(1, 1, LONG_S),
            reader.acknowledge([]),
        ):
            with pytest.raises(BrokerUnavailable):
                await refused


async def test_a_lost_connection_ends_what_waits_for_it(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    outage.server.freeze()
    waiting = [
        asyncio.create_task(broker.publish(topic, b"unheard", LONG_S)),
        asyncio.create_task(reader.fetch(1, 1, LONG_S)),
        asyncio.create_task(broker.ensure(topic, ["readers"])),
    ]
    await asyncio.sleep(0.1)
    outage.server.kill()
    async with asyncio.timeout(AT_ONCE_S):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [BrokerUnavailable] * 3


async def test_a_publish_that_never_hears_back_ends_in_its_time(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    outage.server.freeze()
    clock = asyncio.get_running_loop().time
    started = clock()
    with pytest.raises(PublishTimeout):
        await broker.publish(topic, b"unheard", 0.5)
    assert 0.45 <= clock() - started < AT_ONCE_S

    outage.server.thaw()
    await persistently(lambda: broker.publish(topic, b"heard", 2.0))
    async with asyncio.timeout(SOON_S):
        while bodies(await take(reader, 1)) != [b"heard"]:
            pass  # the first may have been stored, too


async def test_many_large_publishes_to_a_frozen_server_all_end(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    outage.server.freeze()
    body = bytes(broker.features.max_message_bytes)
    async with asyncio.timeout(SOON_S):
        results = await asyncio.gather(*(broker.publish(topic, body, 1.0) for _ in range(40)), return_exceptions=True)
        assert {type(result) for result in results} == {PublishTimeout}
        await broker.close()


@pytest.mark.features(at_most_once=False)
async def test_nothing_confirmed_is_lost_over_a_kill_and_restart(outage: Harness) -> None:
    broker, topic = await outage.broker(redeliver_after_s=2.0), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    found: set[bytes] = set()
    published = asyncio.create_task(_publish_all(broker, topic, numbered(3000)))

    async def read() -> None:
        while not (published.done() and found >= set(numbered(3000))):
            try:
                messages = await reader.fetch(50, 2**20, 0.2)
                found.update(bodies(messages))
                await reader.acknowledge(messages)
            except BrokerUnavailable:
                await asyncio.sleep(0.02)

    reading = asyncio.create_task(read())
    for fraction in (500, 1500):
        await until(lambda wanted=fraction: len(found) > wanted, BACK_S)  # type: ignore[misc]
        outage.server.kill()
        await asyncio.sleep(0.1)
        outage.server.start()
    async with asyncio.timeout(1.5 * LONG_S):
        await published
        await reading


async def _publish_all(broker: Broker, topic: str, wanted: list[bytes]) -> None:
    for body in wanted:
        await persistently(lambda body=body: broker.publish(topic, body, 2.0), LONG_S)  # type: ignore[misc]


@pytest.mark.features(at_most_once=False)
async def test_confirmed_messages_survive_a_kill_unread(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    await asyncio.gather(*(broker.publish(topic, body, SOON_S) for body in numbered(500)))
    await outage.restart(broker)
    assert bodies(await take(await broker.subscribe(topic, "readers"), 500, BACK_S)) == numbered(500)


@pytest.mark.features(at_most_once=False)
async def test_a_waiting_fetch_goes_on_soon_after_a_restart(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    waiting = asyncio.create_task(take(reader, 1, LONG_S))
    await asyncio.sleep(0.1)
    outage.server.kill()
    outage.server.start()
    await persistently(lambda: broker.publish(topic, b"after", 2.0), BACK_S)
    async with asyncio.timeout(SOON_S):
        assert bodies(await waiting) == [b"after"]


@pytest.mark.features(at_most_once=False)
async def test_an_acknowledgement_from_before_a_reconnect_does_no_harm(outage: Harness) -> None:
    broker, topic = await outage.broker(redeliver_after_s=1.0), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(10):
        await broker.publish(topic, body, SOON_S)
    stale = await take(reader, 5)
    await outage.restart(broker)
    await reader.acknowledge(stale)

    found: set[bytes] = set(bodies(stale))
    async with asyncio.timeout(BACK_S):
        while len(found) < 10:
            messages = await take(reader, 1)
            found.update(bodies(messages))
            await reader.acknowledge(messages)
    await broker.publish(topic, b"next", SOON_S)
    async with asyncio.timeout(SOON_S):
        while b"next" not in bodies(messages):
            messages = await take(reader, 1)
            await reader.acknowledge(messages)


@pytest.mark.features(at_most_once=False)
async def test_what_was_held_over_a_restart_comes_again_soon(outage: Harness) -> None:
    broker, topic = await outage.broker(redeliver_after_s=LONG_S), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(10):
        await broker.publish(topic, body, SOON_S)
    await take(reader, 10)
    await outage.restart(broker)
    assert bodies(await take(reader, 10, BACK_S)) == numbered(10)


@pytest.mark.features(at_most_once=False)
async def test_after_data_loss_ensure_makes_all_anew_and_old_acknowledgements_miss_it(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"gone", SOON_S)
    stale = await take(reader, 1)
    outage.server.kill()
    outage.server.lose_data()
    await outage.restart(broker)
    async with asyncio.timeout(BACK_S):
        for refused in (broker.publish(topic, b"nowhere", LONG_S), reader.fetch(1, 1, LONG_S)):
            with pytest.raises(BrokerUnavailable):
                await refused

    await persistently(lambda: broker.ensure(topic, ["readers"]), BACK_S)
    await broker.publish(topic, b"new", SOON_S)
    assert bodies(await take(reader, 1)) == [b"new"]
    await reader.acknowledge(stale)
    await reader.close()
    assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [b"new"]


@pytest.mark.features(at_most_once=False)
async def test_a_killed_consumer_gives_up_what_it_held(outage: Harness) -> None:
    broker, topic = await outage.broker(redeliver_after_s=1.5), fresh()
    await broker.ensure(topic, ["readers"])
    for body in numbered(30):
        await broker.publish(topic, body, SOON_S)
    reader = await broker.subscribe(topic, "readers")

    consumer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CONSUMER, outage.server.url, topic, "readers", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert consumer.stdout is not None
        async with asyncio.timeout(BACK_S):
            held = int(await consumer.stdout.readline())
    finally:
        consumer.kill()
        await consumer.communicate()

    assert 0 < held < 30
    found: set[bytes] = set()
    async with asyncio.timeout(BACK_S):
        while len(found) < 30:
            messages = await reader.fetch(30, 2**20, 1.0)
            await reader.acknowledge(messages)
            found.update(bodies(messages))
    assert sorted(found) == numbered(30)


_CONSUMER = textwrap.dedent("""
    import asyncio, sys, time
    from brokers import open_broker
    from core.endpoints import Endpoint
    from core.errors import BrokerError

    async def main(url, topic, group):
        broker = open_broker(Endpoint.of(url), name="to be killed")
        await broker.start()
        while not broker.connected:
            await asyncio.sleep(0.01)
        subscription = await broker.subscribe(topic, group)
        print(len(await subscription.fetch(20, 2**20, 20.0)), flush=True)
        time.sleep(60)

    import structlog
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
""")


@pytest.mark.parametrize("state", ["running", "killed", "frozen", "never there"])
async def test_close_is_quick_whatever_the_server_does(outage: Harness, state: str) -> None:
    if state == "never there":
        outage.server.kill()
        broker = outage.make()
        await broker.start()
        await asyncio.sleep(0.05)
    else:
        broker, topic = await outage.broker(), fresh()
        await broker.ensure(topic, ["readers"])
        reader = await broker.subscribe(topic, "readers")
        await broker.publish(topic, b"held", SOON_S)
        await take(reader, 1)
    if state == "killed":
        outage.server.kill()
    if state == "frozen":
        outage.server.freeze()
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(broker.close(), broker.close())


@pytest.mark.features(at_most_once=False)
async def test_a_member_that_leaves_a_frozen_server_does_not_take_the_broker_along(outage: Harness) -> None:
    broker, topic = await outage.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    outage.server.freeze()
    async with asyncio.timeout(SOON_S):
        await reader.close()
    outage.server.thaw()
    await persistently(lambda: broker.publish(topic, b"on", 2.0))
    assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [b"on"]
