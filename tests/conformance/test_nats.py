"""What only NATS JetStream has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from structlog.testing import capture_logs

from brokers import nats_pull
from brokers.base import Broker
from brokers.conformance.harness import SOON_S, Harness, Server, bodies, fresh, numbered, persistently, take, until
from brokers.nats import NatsBroker, _check_syncs
from brokers.nats_pull import messages_behind
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerUnavailable, MessageTooLarge, PublishTimeout, SettingsError
from core.settings import Durability
from stack import parts
from stack.parts import Part
from stack.ports import free_port
from tests.conformance.kinds import NATS
from tests.conformance.server import StackServer, configured
from tests.servers import needs


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    """The server, seen by the plain client."""
    client = await nats.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


def server_with(settings: str) -> StackServer:
    needs("nats-server")
    return StackServer(lambda directory: configured(parts.nats(directory), directory, settings))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    assert NATS.make_server
    server = NATS.make_server(False)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def on_shared(server: Server) -> AsyncIterator[Harness]:
    harness = Harness(NATS, server)
    yield harness
    await harness.close()


@asynccontextmanager
async def connected(url: str, durability: Durability) -> AsyncIterator[NatsBroker]:
    broker = NatsBroker(Endpoint.of(url), name="test", durability=durability, max_topic_bytes=2**20)
    await broker.start()
    try:
        await until(lambda: broker.connected)
        yield broker
    finally:
        await broker.close()


_SAFE: dict[str, Any] = {"retention": "interest", "discard": "new", "max_bytes": 2**20}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention", "limits"),
        ("retention", "workqueue"),
        ("discard", "old"),
        ("storage", "memory"),
        ("max_age", 3600),
        ("max_msgs_per_subject", 5),
        ("no_ack", True),
        ("persist_mode", "async"),
    ],
)
async def test_a_stream_that_could_lose_messages_is_refused_by_name(
    on_shared: Harness, setting: str, value: object
) -> None:
    broker, topic = await on_shared.broker(), fresh()
    async with jetstream(on_shared.server.url) as js:
        await js.add_stream(name=topic, subjects=[topic], **{**_SAFE, setting: value})
        with pytest.raises(BrokerError, match=f"{setting}.*once all is counted") as refused:
            await broker.ensure(topic, ["readers"])
        assert not isinstance(refused.value, BrokerUnavailable)


@pytest.mark.parametrize(("durability", "storage"), [("relaxed", "memory"), ("confirmed", "file"), ("fsync", "file")])
async def test_each_durability_has_its_storage(on_shared: Harness, durability: Durability, storage: str) -> None:
    topic = fresh()
    async with connected(on_shared.server.url, durability) as broker, jetstream(on_shared.server.url) as js:
        await broker.ensure(topic, ["readers"])
        await broker.publish(topic, b"stored", SOON_S)
        assert (await js.stream_info(topic)).config.storage == storage
        assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [b"stored"]


async def test_a_stream_on_file_serves_the_relaxed_too(on_shared: Harness) -> None:
    topic = fresh()
    await (await on_shared.broker()).ensure(topic, ["readers"])
    async with connected(on_shared.server.url, "relaxed") as broker:
        await broker.ensure(topic, ["readers"])
        await broker.publish(topic, b"stored", SOON_S)


def test_a_server_that_cannot_sync_each_message_is_refused() -> None:
    _check_syncs((2, 10))
    with pytest.raises(BrokerError, match=r"2\.9 has no sync_interval"):
        _check_syncs((2, 9))


@pytest.mark.parametrize("version", ["nats-server: v2.9.10", "something else"])
def test_the_stack_does_not_run_one_that_cannot(tmp_path: Path, version: str) -> None:
    program = tmp_path / "nats-server"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    with pytest.raises(SettingsError, match=f"sync_interval of nats-server .* not '{version}'"):
        parts.check_syncs(program)


async def test_the_stack_runs_a_server_that_syncs_each_message() -> None:
    needs("nats-server")
    monitor = free_port()

    def monitored(directory: Path) -> Part:
        part = parts.nats(directory, durability="fsync")
        return replace(part, argv=[*part.argv, "-m", str(monitor)])

    server = StackServer(monitored)
    server.start()
    try:
        async with connected(server.url, "fsync") as broker:
            topic = fresh()
            await broker.ensure(topic, ["readers"])
            await broker.publish(topic, b"stored", SOON_S)
        told = await asyncio.to_thread(urlopen, f"http://127.0.0.1:{monitor}/varz", timeout=SOON_S)
        with told:
            assert json.load(told)["jetstream"]["config"]["sync_always"] is True
    finally:
        server.close()


async def test_a_stream_of_other_subjects_is_refused(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    async with jetstream(on_shared.server.url) as js:
        await js.add_stream(name=topic, subjects=[fresh()], **_SAFE)
        with pytest.raises(BrokerError, match="subjects"):
            await broker.ensure(topic, ["readers"])


async def test_a_safe_stream_made_by_others_is_taken_as_it_is(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    async with jetstream(on_shared.server.url) as js:
        await js.add_stream(name=topic, subjects=[topic], **_SAFE)
        await broker.ensure(topic, ["readers"])
        assert (await js.stream_info(topic)).config.max_bytes == 2**20
    await broker.publish(topic, b"taken", SOON_S)
    assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [b"taken"]


async def test_a_stream_takes_nothing_in_before_its_groups_stand(on_shared: Harness) -> None:
    """Another replica may have been killed half-way through ensure: what nobody would read is not confirmed."""
    broker, topic = await on_shared.broker(), fresh()
    async with jetstream(on_shared.server.url) as js:
        await js.add_stream(name=topic, subjects=[f"_UNFINISHED.{topic}"], **_SAFE)
        with pytest.raises(BrokerUnavailable):
            await broker.publish(topic, b"too early", SOON_S)
        await broker.ensure(topic, ["readers"])
        assert (await js.stream_info(topic)).config.subjects == [topic]
    await broker.publish(topic, b"in time", SOON_S)
    assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [b"in time"]


async def test_no_confirm_while_many_ensure_at_once(on_shared: Harness) -> None:
    """Whoever publishes as soon as it can, while others still ensure: what is confirmed is there."""
    brokers, topic = [await on_shared.broker() for _ in range(4)], fresh()

    async def publish(broker: Broker, body: bytes) -> None:
        async with asyncio.timeout(SOON_S):
            while True:
                try:
                    return await broker.publish(topic, body, SOON_S)
                except BrokerUnavailable:
                    await asyncio.sleep(0)

    sent = [b"%d" % number for number in range(8)]
    publishing = [asyncio.create_task(publish(brokers[number % 4], body)) for number, body in enumerate(sent)]
    await asyncio.gather(*(broker.ensure(topic, ["first", "second"]) for broker in brokers))
    await asyncio.gather(*publishing)
    for group in ("first", "second"):
        assert bodies(await take(await brokers[0].subscribe(topic, group), len(sent))) == sent


async def test_the_streams_own_limit_of_a_message_holds(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    async with jetstream(on_shared.server.url) as js:
        await js.add_stream(name=topic, subjects=[topic], max_msg_size=1000, **_SAFE)
    await broker.ensure(topic, ["readers"])
    assert broker.features.max_message_bytes == 1000
    await broker.publish(topic, b"x" * 1000, SOON_S)
    with pytest.raises(MessageTooLarge):
        await broker.publish(topic, b"x" * 1001, SOON_S)


async def test_what_ensure_makes(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(redeliver_after_s=7.5, max_topic_bytes=12345), fresh()
    await broker.ensure(topic, ["readers"])
    async with jetstream(on_shared.server.url) as js:
        stream = (await js.stream_info(topic)).config
        durable = (await js.consumer_info(topic, "readers")).config
    assert (stream.retention, stream.discard, stream.storage) == ("interest", "new", "file")
    assert (stream.max_bytes, stream.max_age, stream.max_msgs) == (12345, 0, -1)
    assert (durable.ack_policy, durable.max_deliver, durable.ack_wait) == ("explicit", -1, 7.5)
    assert (durable.deliver_policy, durable.max_ack_pending) == ("all", 8192)


async def test_acknowledged_messages_leave_the_stream(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for _ in range(5):
        await broker.publish(topic, b"counted", SOON_S)
    await reader.acknowledge(await take(reader, 5))
    async with jetstream(on_shared.server.url) as js, asyncio.timeout(SOON_S):
        while (await js.stream_info(topic)).state.messages:
            await asyncio.sleep(0.02)


async def test_the_servers_own_limit_of_a_message_holds() -> None:
    server = server_with("max_payload: 65536\njetstream: {store_dir: %s}")
    server.start()
    harness = Harness(NATS, server)
    try:
        broker, topic = await harness.broker(), fresh()
        await broker.ensure(topic, ["readers"])
        assert broker.features.max_message_bytes == 65536
        with pytest.raises(MessageTooLarge):
            await broker.publish(topic, bytes(65537), SOON_S)
        await broker.publish(topic, bytes(65536), SOON_S)
        assert broker.connected
    finally:
        await harness.close()
        server.close()


async def test_a_server_without_jetstream_is_unavailable() -> None:
    server = server_with("")
    server.start()
    harness = Harness(NATS, server)
    try:
        broker, topic = await harness.broker(), fresh()
        async with asyncio.timeout(4.0):  # less than an answer is waited for
            for refused in (broker.ensure(topic, ["readers"]), broker.publish(topic, b"lost", 60.0)):
                with pytest.raises(BrokerUnavailable):
                    await refused
    finally:
        await harness.close()
        server.close()


async def test_a_connection_that_was_given_up_is_made_anew_and_what_it_delivered_comes_again(
    on_shared: Harness,
) -> None:
    broker, topic = await on_shared.broker(redeliver_after_s=60.0), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"held", SOON_S)
    await take(reader, 1)
    assert isinstance(broker, NatsBroker)
    lost = broker.link()
    lost.break_off("by the test")
    await until(lambda: broker.connected and broker.link() is not lost)
    await broker.publish(topic, b"new", SOON_S)
    assert bodies(await take(reader, 2)) == [b"held", b"new"]


async def test_old_receipts_are_stale_in_a_stream_made_anew_on_the_same_connection(
    on_shared: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_pull, "SURE_S", 0.0)
    broker, topic = await on_shared.broker(redeliver_after_s=60.0), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for _ in range(5):
        await broker.publish(topic, b"old", SOON_S)
    stale = await take(reader, 5)
    async with jetstream(on_shared.server.url) as js:
        await js.delete_stream(topic)
        await broker.ensure(topic, ["readers"])
        for body in numbered(5):
            await broker.publish(topic, body, SOON_S)
        other = await broker.subscribe(topic, "readers")
        await take(other, 5)
        await reader.acknowledge(stale)
        await other.close()
        again = await take(reader, 5)
        assert bodies(again) == numbered(5)
        await reader.acknowledge(again)
        async with asyncio.timeout(SOON_S):
            while (await js.stream_info(topic)).state.messages:
                await asyncio.sleep(0.02)

        await js.delete_stream(topic)
        await reader.acknowledge(again)


async def test_a_receipt_belongs_to_its_subscription(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(redeliver_after_s=60.0), fresh()
    await broker.ensure(topic, ["readers"])
    reader, other = [await broker.subscribe(topic, "readers") for _ in range(2)]
    await broker.publish(topic, b"held", SOON_S)
    await other.acknowledge(await take(reader, 1))
    await reader.close()
    assert bodies(await take(other, 1)) == [b"held"]


async def test_a_member_that_left_leaves_nothing_on_the_connection(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    assert isinstance(broker, NatsBroker)
    await broker.ensure(topic, ["readers"])
    before = set(broker.link().client._receivers)
    for _ in range(3):
        await (await broker.subscribe(topic, "readers")).close()
    assert set(broker.link().client._receivers) == before


async def test_a_message_that_its_receiver_cannot_take_is_told_and_the_next_is_received(
    on_shared: Harness,
) -> None:
    broker, subject = await on_shared.broker(), fresh()
    assert isinstance(broker, NatsBroker)
    received = asyncio.Event()

    def receive(message: Msg) -> None:
        int(message.data)
        received.set()

    await broker.link().listen(subject, receive)
    with capture_logs() as logs:
        for body in (b"odd", b"1"):
            broker.link().send(subject, body)
        async with asyncio.timeout(SOON_S):
            await received.wait()
    assert ["invalid literal" in line.get("error", "") for line in logs] == [True]


async def test_what_found_no_room_in_its_time_is_not_sent_later() -> None:
    """A server that reads nothing: what does not fit the buffers waits, and is given up with its publish."""
    server = server_with("jetstream: {store_dir: %s}")
    server.start()
    broker = NatsBroker(Endpoint.of(server.url), name="test", max_topic_bytes=2**27)
    await broker.start()
    try:
        await until(lambda: broker.connected)
        topic, body = fresh(), bytes(broker.features.max_message_bytes)
        await persistently(lambda: broker.ensure(topic, ["readers"]))
        server.freeze()
        sent = [broker.publish(topic, body, 1.0) for _ in range(40)]
        results = await asyncio.gather(*sent, return_exceptions=True)
        assert {type(result) for result in results} == {PublishTimeout}
        server.thaw()
        async with asyncio.timeout(SOON_S):
            await broker.publish(topic, b"next", SOON_S)
        async with jetstream(server.url) as client:
            stored = (await client.stream_info(topic)).state.messages
        assert 2 <= stored < 40
    finally:
        server.thaw()
        await broker.close()
        server.close()


@pytest.mark.parametrize("url", ["nats://", "nats://:4222", "nats://host:port", "nats://host:99999"])
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BROKER_URL"):
        NatsBroker(Endpoint.of(url), name="test")


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.rates.counters.1.2.3.1700000000000000000.42",
        "$JS.ACK.hub.ABCDEF.rates.counters.1.2.3.1700000000000000000.42",
        "$JS.ACK.hub.ABCDEF.rates.counters.1.2.3.1700000000000000000.42.xyz",
    ],
)
def test_the_number_of_messages_behind_is_read_from_either_form_of_reply(reply: str) -> None:
    assert messages_behind(reply) == 42
