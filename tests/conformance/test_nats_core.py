"""What only plain NATS has: no storing, and so nothing but the truth about it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from brokers import nats_core, open_broker
from brokers.conformance.harness import SOON_S, Harness, Server, bodies, fresh, numbered, take, until
from brokers.nats_core import NatsCoreBroker
from core.endpoints import Endpoint
from core.errors import BrokerUnavailable, PublishTimeout, SettingsError
from core.settings import Durability
from tests.conformance.kinds import NATS_CORE


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    assert NATS_CORE.make_server
    server = NATS_CORE.make_server(True)
    yield server
    server.close()


@pytest.fixture
async def on_own(server: Server) -> AsyncIterator[Harness]:
    server.start()
    harness = Harness(NATS_CORE, server)
    yield harness
    await harness.close()


@pytest.mark.parametrize("durability", ["confirmed", "fsync"])
def test_at_most_once_must_be_asked_for(durability: Durability) -> None:
    with pytest.raises(SettingsError, match=rf"nats\+core:// .* DURABILITY={durability}; .* DURABILITY=relaxed"):
        open_broker(Endpoint.of("nats+core://127.0.0.1:4222"), name="test", durability=durability)


@pytest.mark.parametrize("url", ["nats+core://", "nats+core://:4222", "nats+core://host:port"])
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BROKER_URL"):
        NatsCoreBroker(Endpoint.of(url), name="test", durability="relaxed")


async def test_every_group_gets_each_message_and_one_member_of_it(on_own: Harness) -> None:
    broker, other, topic = await on_own.broker(), await on_own.broker(), fresh()
    members = {group: [await broker.subscribe(topic, group) for _ in range(2)] for group in ("first", "second")}
    for body in numbered(50):
        await other.publish(topic, body, SOON_S)
    for pair in members.values():
        found = [message for member in pair for message in await take(member, 50, 0.5)]
        assert bodies(found) == numbered(50)


async def test_what_nobody_listens_to_is_lost(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    await broker.publish(topic, b"lost", SOON_S)
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"heard", SOON_S)
    assert bodies(await take(reader, 2, 0.5)) == [b"heard"]


async def test_what_is_not_fetched_is_kept_within_bounds_and_counted(
    on_own: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_core, "MAX_WAITING_BYTES", 10_000)
    broker, topic = await on_own.broker(), fresh()
    assert isinstance(broker, NatsCoreBroker)
    reader = await broker.subscribe(topic, "readers")
    with structlog.testing.capture_logs() as logs:
        for _ in range(15):
            await broker.publish(topic, bytes(1000), SOON_S)
        await until(lambda: reader.lost == 5)
        assert len(await take(reader, 4)) == 4
        await broker.publish(topic, bytes(1000), SOON_S)
        await reader.close()
    assert reader.lost == 12
    assert [line["event"] for line in logs] == ["messages_lost"]


async def test_a_waiting_member_listens_again_after_a_restart(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    reader = await broker.subscribe(topic, "readers")
    waiting = asyncio.create_task(take(reader, 1, SOON_S))
    await on_own.restart(broker)
    async with asyncio.timeout(SOON_S):
        while not waiting.done():
            await broker.publish(topic, b"after", SOON_S)
            await asyncio.sleep(0.02)
    assert bodies(await waiting) == [b"after"]


async def test_what_was_not_fetched_before_the_server_went_is_fetched_after(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(3):
        await broker.publish(topic, body, SOON_S)
    await on_own.restart(broker)
    assert bodies(await take(reader, 3)) == numbered(3)


async def test_what_has_come_is_fetched_while_there_is_no_connection(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(3):
        await broker.publish(topic, body, SOON_S)
    on_own.server.kill()
    await until(lambda: not broker.connected)
    assert bodies(await reader.fetch(10, 2**20, 1.0)) == numbered(3)
    with pytest.raises(BrokerUnavailable):
        await reader.fetch(10, 2**20, 1.0)


async def test_a_member_that_left_leaves_nothing_on_the_connection(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    assert isinstance(broker, NatsCoreBroker)
    before = set(broker._keeper.link().client._receivers)
    for _ in range(3):
        await (await broker.subscribe(topic, "readers")).close()
    assert set(broker._keeper.link().client._receivers) == before


async def test_a_server_that_reads_nothing_does_not_fill_this_process(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    assert isinstance(broker, NatsCoreBroker)
    on_own.server.freeze()
    body = bytes(2**19)
    publishes = [asyncio.create_task(broker.publish(topic, body, 1.0)) for _ in range(64)]
    client = broker._keeper.link().client
    try:
        most = 0
        while not all(each.done() for each in publishes):
            most = max(most, client.unsent_bytes)
            await asyncio.sleep(0.01)
        assert 2**22 < most <= 2**23 + 2 * len(body)
        assert {type(each.exception()) for each in publishes} == {PublishTimeout}
    finally:
        on_own.server.thaw()


async def test_what_is_published_in_one_turn_of_the_event_loop_leaves_in_one_piece(
    on_own: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, topic = await on_own.broker(), fresh()
    assert isinstance(broker, NatsCoreBroker)
    transport, pieces = broker._keeper.link().client._transport, []
    write = transport.write

    def count(piece: bytes) -> None:
        pieces.append(piece)
        write(piece)

    monkeypatch.setattr(transport, "write", count)
    await asyncio.gather(*(broker.publish(topic, b"body", 5) for _ in range(20)))
    assert [piece.count(b"PUB " + topic.encode()) for piece in pieces] == [20]


async def test_a_connection_that_is_reset_while_it_sends_is_lost_at_once(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    assert isinstance(broker, NatsCoreBroker)
    odd: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: odd.append(context["message"]))
    link = broker._keeper.link()
    await link.client._send_ping()  # as it does by itself every few seconds
    on_own.server.freeze()
    publishing = asyncio.create_task(broker.publish(topic, b"unread by the server, whose end so is a reset", 60.0))
    await asyncio.sleep(0.05)
    await link.client._send_ping()
    on_own.server.kill()
    with pytest.raises(BrokerUnavailable):
        await publishing
    await until(lambda: not broker.connected)
    await link.close()
    gc.collect()
    assert not odd


async def test_a_publish_under_way_when_the_server_dies_is_not_confirmed(on_own: Harness) -> None:
    broker, topic = await on_own.broker(), fresh()
    on_own.server.freeze()
    publishing = asyncio.create_task(broker.publish(topic, b"unheard", 60.0))
    await asyncio.sleep(0.05)
    on_own.server.kill()
    with pytest.raises(BrokerUnavailable):
        await publishing
