"""What only RabbitMQ has. It is looked at with another client than the adapter's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiormq
import psutil
import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp import commands
from structlog.testing import capture_logs

from brokers.conformance.harness import SOON_S, Harness, Server, bodies, fresh, numbered, persistently, take, until
from brokers.rabbit import DELIVERY_LIMIT, RabbitBroker
from brokers.rabbit_pull import RabbitSubscription
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, MessageTooLarge, PublishTimeout, SettingsError
from core.settings import Durability
from stack.parts import Part
from stack.programs import MissingProgram
from stack.rabbit import rabbit
from stack.supervisor import Stack
from tests.conformance.kinds import RABBIT
from tests.conformance.server import StackServer
from tests.servers import needs

_QUORUM: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
_SAFE: dict[str, Any] = {**_QUORUM, "x-overflow": "reject-publish", "x-max-length-bytes": 2**20}


@asynccontextmanager
async def plainly(url: str) -> AsyncIterator[AbstractChannel]:
    """The server, seen by another client."""
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


def server_with(settings: str = "", advanced: str = "") -> StackServer:
    """One with further lines of configuration."""
    needs("rabbitmq-server")
    return StackServer(lambda directory: configured(rabbit(directory), settings, advanced))


def configured(part: Part, settings: str, advanced: str) -> Part:
    path = Path(part.env["RABBITMQ_CONFIG_FILE"])
    beside = path.with_name("advanced.config")
    files = {**part.files, path: part.files[path] + settings, beside: advanced or "[]."}
    return replace(part, files=files, env={**part.env, "RABBITMQ_ADVANCED_CONFIG_FILE": str(beside)})


def rabbit_env(server: StackServer) -> Mapping[str, str]:
    return server._part.env


def control(env: Mapping[str, str], *command: str) -> None:
    """rabbitmqctl, for the server with `env`."""
    scripts = next(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    subprocess.run([scripts / "rabbitmqctl", *command], env={**os.environ, **env}, check=True, timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    assert RABBIT.make_server
    server = RABBIT.make_server(False)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def on_shared(server: Server) -> AsyncIterator[Harness]:
    harness = Harness(RABBIT, server)
    yield harness
    await harness.close()


@asynccontextmanager
async def on_own(server: StackServer) -> AsyncIterator[Harness]:
    server.start()
    harness = Harness(RABBIT, server)
    try:
        yield harness
    finally:
        await harness.close()
        server.close()


@asynccontextmanager
async def durable(url: str, durability: Durability, **settings: int) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(Endpoint.of(url), name="test", durability=durability, **settings)
    await broker.start()
    await until(lambda: broker.connected)
    try:
        yield broker
    finally:
        await broker.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("x-queue-type", "classic"),
        ("x-overflow", "drop-head"),
        ("x-delivery-limit", 20),
        ("x-message-ttl", 60_000),
        ("x-expires", 60_000),
        ("x-max-length", 5),
        ("x-dead-letter-exchange", "elsewhere"),
    ],
)
async def test_a_queue_that_could_lose_messages_is_refused_by_name(
    on_shared: Harness, setting: str, value: object
) -> None:
    broker, topic = await on_shared.broker(), fresh()
    arguments = {**_SAFE, setting: value}
    if value == "classic":
        del arguments["x-delivery-limit"]
    async with plainly(on_shared.server.url) as channel:
        await channel.queue_declare(f"{topic}.readers", durable=True, arguments=arguments)
    with pytest.raises(BrokerError, match=f"'{setting}'") as refused:
        await broker.ensure(topic, ["readers"])
    assert not isinstance(refused.value, BrokerUnavailable)


@pytest.mark.parametrize(("setting", "kind", "durable"), [("type", "direct", True), ("durable", "fanout", False)])
async def test_an_exchange_that_could_lose_messages_is_refused_by_name(
    on_shared: Harness, setting: str, kind: str, durable: bool
) -> None:
    broker, topic = await on_shared.broker(), fresh()
    async with plainly(on_shared.server.url) as channel:
        await channel.exchange_declare(topic, exchange_type=kind, durable=durable)
    with pytest.raises(BrokerError, match=f"'{setting}'") as refused:
        await broker.ensure(topic, ["readers"])
    assert not isinstance(refused.value, BrokerUnavailable)


@pytest.mark.parametrize("bound", [{"x-max-length-bytes": 2**21}, {}])
async def test_a_queue_with_another_bound_keeps_it(on_shared: Harness, bound: dict[str, int]) -> None:
    broker, topic = await on_shared.broker(max_topic_bytes=2**20), fresh()
    async with plainly(on_shared.server.url) as channel:
        arguments = {**_QUORUM, "x-overflow": "reject-publish", **bound}
        await channel.queue_declare(f"{topic}.first", durable=True, arguments=arguments)
    await broker.ensure(topic, ["first", "second"])
    await broker.publish(topic, b"taken", SOON_S)
    for group in ("first", "second"):
        assert bodies(await take(await broker.subscribe(topic, group), 1)) == [b"taken"]


async def test_another_bound_hides_no_other_setting(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(max_topic_bytes=2**20), fresh()
    async with plainly(on_shared.server.url) as channel:
        arguments = {**_SAFE, "x-max-length-bytes": 2**21, "x-overflow": "drop-head"}
        await channel.queue_declare(f"{topic}.readers", durable=True, arguments=arguments)
    with pytest.raises(BrokerError, match="'x-overflow'"):
        await broker.ensure(topic, ["readers"])


@pytest.mark.parametrize(
    ("durability", "arguments", "mode"),
    [
        ("relaxed", {"x-queue-type": "classic"}, 1),
        ("confirmed", _QUORUM, 2),
        ("fsync", _QUORUM, 2),
    ],
)
async def test_what_ensure_and_publish_make(
    server: Server, durability: Durability, arguments: dict[str, Any], mode: int
) -> None:
    topic = fresh()
    async with durable(server.url, durability, max_topic_bytes=12345) as broker, plainly(server.url) as channel:
        await broker.ensure(topic, ["readers"])
        await broker.publish(topic, b"body", SOON_S)
        expected = {**arguments, "x-overflow": "reject-publish", "x-max-length-bytes": 12345}
        await channel.exchange_declare(topic, exchange_type="fanout", durable=True)
        await channel.queue_declare(f"{topic}.readers", durable=True, arguments=expected)
        found = await channel.basic_get(f"{topic}.readers", no_ack=True)
        assert (found.body, found.header.properties.delivery_mode) == (b"body", mode)
        with pytest.raises(ChannelPreconditionFailed):
            await channel.queue_declare(f"{topic}.readers", durable=True, arguments={**expected, "x-max-length": 1})


async def test_a_topic_of_another_durability_is_refused_by_name(server: Server) -> None:
    topic = fresh()
    async with durable(server.url, "relaxed") as relaxed, durable(server.url, "confirmed") as confirmed:
        await relaxed.ensure(topic, ["readers"])
        with pytest.raises(BrokerError, match=r"'x-queue-type'.*delete it once all is counted"):
            await confirmed.ensure(topic, ["readers"])


async def test_a_refusal_costs_a_channel_and_leaves_none_behind(server: Server) -> None:
    """RabbitMQ may go on refusing on a channel for what is no longer so."""
    topic = fresh()
    async with durable(server.url, "confirmed", max_topic_bytes=64 * 1024) as broker:
        await broker.ensure(topic, ["readers"])
        link = broker.link()
        channels, publishers = len(link._channels), set()
        for _ in range(300):
            with suppress(BrokerFull):
                await broker.publish(topic, bytes(4096), SOON_S)
            publishers.add(broker._publishers[topic])
            if len(publishers) == 5:
                break
        assert len(publishers) == 5, "not one more for each refusal"
        await until(lambda: len(link._channels) == channels + 1)


async def test_a_full_relaxed_topic_refuses_too(server: Server) -> None:
    topic = fresh()
    async with durable(server.url, "relaxed", max_topic_bytes=64 * 1024) as broker:
        await broker.ensure(topic, ["readers"])
        outcomes = await asyncio.gather(
            *(broker.publish(topic, bytes(1024), SOON_S) for _ in range(128)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {type(None), BrokerFull}
        stored = outcomes.count(None)
        reader = await broker.subscribe(topic, "readers")
        await reader.acknowledge(await take(reader, stored))
        await persistently(lambda: broker.publish(topic, bytes(1024), SOON_S))


async def test_a_topic_that_is_gone_refuses_and_other_topics_go_on(on_shared: Harness) -> None:
    broker, topic, other = await on_shared.broker(), fresh(), fresh()
    await broker.ensure(topic, ["readers"])
    await broker.ensure(other, ["readers"])
    await broker.publish(topic, b"stored", SOON_S)
    async with plainly(on_shared.server.url) as channel:
        await channel.exchange_delete(topic)
    refused, taken = await asyncio.gather(
        asyncio.gather(*(broker.publish(topic, body, 60.0) for body in numbered(20)), return_exceptions=True),
        asyncio.gather(*(broker.publish(other, body, 60.0) for body in numbered(20))),
    )
    assert {type(outcome) for outcome in refused} == {BrokerUnavailable}
    assert taken == [None] * 20

    await broker.ensure(topic, ["readers"])
    await broker.publish(topic, b"again", SOON_S)
    assert bodies(await take(await broker.subscribe(topic, "readers"), 2)) == [b"again", b"stored"]


async def test_a_queue_that_is_gone_is_told_to_both_sides(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"gone", SOON_S)
    stale = await take(reader, 1)
    waiting = asyncio.create_task(reader.fetch(1, 2**20, 60.0))
    async with plainly(on_shared.server.url) as channel:
        await channel.queue_delete(f"{topic}.readers")
    async with asyncio.timeout(SOON_S):
        for told in (waiting, broker.publish(topic, b"nowhere", 60.0), reader.fetch(1, 2**20, 60.0)):
            with pytest.raises(BrokerUnavailable):
                await told
    await reader.acknowledge(stale)

    await broker.ensure(topic, ["readers"])
    await broker.publish(topic, b"new", SOON_S)
    await reader.acknowledge(stale)
    assert bodies(await take(reader, 1)) == [b"new"]


async def test_no_publish_hangs_and_nothing_stays_stuck_while_queues_come_and_go(on_shared: Harness) -> None:
    """A queue is deleted five times under load, which RabbitMQ 3.10 answers by failing on the connection, too."""
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    stop = asyncio.Event()
    confirmed: list[bytes] = []

    async def load() -> None:
        while not stop.is_set():
            try:
                await broker.publish(topic, b"load", 1.0)
                confirmed.append(b"load")
            except (BrokerUnavailable, PublishTimeout):
                await asyncio.sleep(0.01)

    loading = [asyncio.create_task(load()) for _ in range(4)]
    async with plainly(on_shared.server.url) as channel, asyncio.timeout(60.0):
        for _ in range(5):
            seen = len(confirmed)
            await until(lambda seen=seen: len(confirmed) > seen + 20)  # type: ignore[misc]
            await channel.queue_delete(f"{topic}.readers")
            await persistently(lambda: broker.ensure(topic, ["readers"]))
    stop.set()
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(*loading)
    await broker.publish(topic, b"last", SOON_S)
    reader = await broker.subscribe(topic, "readers")
    async with asyncio.timeout(SOON_S):
        while b"last" not in bodies(messages := await reader.fetch(500, 2**20, 1.0)):
            await reader.acknowledge(messages)


async def test_a_member_whose_connection_breaks_gets_another_and_old_receipts_are_stale(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(redeliver_after_s=60.0), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    assert isinstance(reader, RabbitSubscription)
    await broker.publish(topic, b"held", SOON_S)
    stale = await take(reader, 1)
    (await reader.attach()).link.break_off("by the test")
    await reader.acknowledge(stale)
    await broker.publish(topic, b"new", SOON_S)
    again = await take(reader, 2)
    await reader.acknowledge(stale)
    assert bodies(again) == [b"held", b"new"]
    await reader.close()
    assert bodies(await take(await broker.subscribe(topic, "readers"), 2)) == [b"held", b"new"]


async def test_a_member_that_its_queue_has_forgotten_begins_anew(
    on_shared: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RabbitMQ 3.10 forgets one at times, whose queue is deleted. One that has nothing to read is not forgotten."""
    monkeypatch.setattr("brokers.rabbit_pull._SILENT_S", 1.0)
    monkeypatch.setattr("brokers.rabbit_pull._LOOK_EVERY_S", 0.2)
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    assert isinstance(reader, RabbitSubscription)
    consumer = await reader.attach()
    waiting = asyncio.create_task(reader.fetch(1, 2**20, 60.0))
    await asyncio.sleep(3.0)
    assert not waiting.done()
    assert await reader.attach() is consumer

    consumer.send(commands.Basic.Cancel(consumer_tag="1", nowait=True))
    await broker.publish(topic, b"unseen", SOON_S)
    async with asyncio.timeout(15.0):
        with pytest.raises(BrokerUnavailable, match="forgotten"):
            await waiting
    assert bodies(await take(reader, 1)) == [b"unseen"]


async def test_a_member_that_does_not_fetch_gives_back_what_it_did_not_hand_out(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    for body in numbered(100):
        await broker.publish(topic, body, SOON_S)
    resting, other = await broker.subscribe(topic, "readers"), await broker.subscribe(topic, "readers")
    handed_out = await resting.fetch(100, 1, SOON_S)
    assert len(handed_out) == 1
    rest = await take(other, 99)
    await resting.acknowledge(handed_out)
    assert bodies([*handed_out, *rest]) == numbered(100)


async def test_a_member_holds_back_a_server_that_has_much(on_shared: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.rabbit_pull._IDLE_S", 60.0)
    broker, topic = await on_shared.broker(max_topic_bytes=2**26), fresh()
    await broker.ensure(topic, ["readers"])
    for _ in range(40):
        await broker.publish(topic, bytes(2**20), SOON_S)
    reader = await broker.subscribe(topic, "readers")
    assert isinstance(reader, RabbitSubscription)
    messages = await reader.fetch(100, 1, SOON_S)
    await until(lambda: reader.waiting_bytes > 8 * 2**20)
    for _ in range(50):
        await asyncio.sleep(0.002)
        assert reader.waiting_bytes <= 10 * 2**20
    messages += await take(reader, 39)
    await reader.acknowledge(messages)
    assert len(messages) == 40
    assert await reader.fetch(1, 1, 0.3) == []


async def test_acknowledgements_out_of_order_leave_out_what_was_not_acknowledged(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    for body in numbered(30):
        await broker.publish(topic, body, SOON_S)
    reader = await broker.subscribe(topic, "readers")
    messages = await take(reader, 30)
    for chosen in (messages[20:25], messages[:5], messages[4:10], [messages[29], messages[12]]):
        await reader.acknowledge(chosen)
    await reader.close()
    left = await take(await broker.subscribe(topic, "readers"), 13)
    acknowledged = [*range(10), 12, *range(20, 25), 29]
    assert bodies(left) == [b"%06d" % number for number in range(30) if number not in acknowledged]


async def test_the_servers_own_limit_of_a_message_holds() -> None:
    async with on_own(server_with("max_message_size = 65536\n")) as harness:
        broker, topic = await harness.broker(), fresh()
        await broker.ensure(topic, ["readers"])
        for _ in range(2):  # found out by the first, known before the second
            with pytest.raises(MessageTooLarge):
                await broker.publish(topic, bytes(65537), SOON_S)
            assert broker.features.max_message_bytes == 65536
        await broker.publish(topic, bytes(65536), SOON_S)
        assert broker.connected


async def test_a_server_short_of_resources_refuses_and_still_takes_acknowledgements() -> None:
    server = server_with()
    async with on_own(server) as harness:
        broker, topic = await harness.broker(), fresh()
        await broker.ensure(topic, ["readers"])
        reader = await broker.subscribe(topic, "readers")
        for body in numbered(5):
            await broker.publish(topic, body, SOON_S)
        messages = await take(reader, 5)

        env = rabbit_env(server)
        control(env, "set_disk_free_limit", "9000GB")
        clock = asyncio.get_running_loop().time
        started = clock()
        with pytest.raises(BrokerFull, match="low on disk"):
            await broker.publish(topic, b"refused", 60.0)
        with pytest.raises(BrokerFull):
            await broker.publish(topic, b"refused", 60.0)
        assert clock() - started < SOON_S
        assert broker.connected
        await reader.acknowledge(messages)
        await reader.close()
        left = bodies(await take(await broker.subscribe(topic, "readers"), 1, 1.0))
        assert not set(left) & set(numbered(5))

        control(env, "set_disk_free_limit", "50MB")
        await persistently(lambda: broker.publish(topic, b"taken", SOON_S))


async def test_a_member_that_exceeds_the_servers_acknowledge_timeout_is_rebuilt() -> None:
    settings, advanced = "consumer_timeout = 1000\n", "[{rabbit, [{channel_tick_interval, 500}]}]."
    async with on_own(server_with(settings, advanced)) as harness:
        broker, topic = await harness.broker(redeliver_after_s=60.0), fresh()
        await broker.ensure(topic, ["readers"])
        slow = await broker.subscribe(topic, "readers")
        await broker.publish(topic, b"long work", SOON_S)
        stale = await take(slow, 1)
        with pytest.raises(BrokerUnavailable, match="timed out"):
            await slow.fetch(1, 2**20, SOON_S)
        await slow.acknowledge(stale)
        again = await take(slow, 1)
        await slow.acknowledge(again)
        assert bodies(again) == [b"long work"]
        assert await slow.fetch(1, 2**20, 2.0) == []


async def test_a_wrong_password_is_told_once_and_tried_again(server: Server) -> None:
    broker = RabbitBroker(Endpoint.of(server.url.replace("amqp://", "amqp://guest:wrong@")), name="test")
    with capture_logs() as logs:
        await broker.start()
        await until(lambda: "ACCESS_REFUSED" in repr(logs))
        await asyncio.sleep(1.0)
        assert not broker.connected
        with pytest.raises(BrokerUnavailable):
            await broker.publish(fresh(), b"", 60.0)
        await broker.close()
    assert repr(logs).count("ACCESS_REFUSED") == 1


async def test_whatever_a_try_to_connect_fails_with_it_is_told_once_and_tried_again(server: Server) -> None:
    url = server.url.rstrip("/")
    broker = RabbitBroker(Endpoint.of(f"{url}/{'v' * 300}"), name="test")  # longer than the protocol can say
    with capture_logs() as logs:
        await broker.start()
        await until(lambda: bool(logs))
        await asyncio.sleep(1.0)
        assert any(task.get_name().startswith("rabbit ") for task in asyncio.all_tasks())
        await broker.close()
    assert [line["event"] for line in logs] == ["broker_connect_failed"]


@pytest.mark.parametrize("url", ["amqp://", "amqp://:5672", "amqp://host:port", "amqp://host:99999", "amqp://a..b"])
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BROKER_URL"):
        RabbitBroker(Endpoint.of(url), name="test")


async def test_the_part_stops_gracefully_and_leaves_nothing_behind(tmp_path: Path) -> None:
    needs("rabbitmq-server")
    async with Stack(tmp_path) as stack:
        member = await stack.start(rabbit(tmp_path))
        group = member.pid
        assert {each.name() for each in _group(group)} >= {"beam.smp", "epmd"}
        assert await member.stop() == 0
        assert _group(group) == []
        await member.start()
        group = member.pid
        await member.kill()
        assert _group(group) == []


def _group(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_server_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("stack.programs.SYSTEM_FOLDERS", str(tmp_path))
    with pytest.raises(MissingProgram, match="rabbitmq-server"):
        rabbit(tmp_path)
