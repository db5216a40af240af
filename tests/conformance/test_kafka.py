"""What only Kafka has."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from io import BytesIO

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import OffsetAndMetadata
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from brokers.base import Broker, Message, Subscription
from brokers.conformance.harness import SOON_S, Harness, Server, bodies, fresh, numbered, persistently, take, until
from brokers.kafka import KafkaBroker
from brokers.kafka_holdings import Holdings
from brokers.kafka_share import Share, shares
from brokers.kafka_topics import check_settings
from brokers.kafka_wire import decode
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerUnavailable, MessageTooLarge, SettingsError
from core.settings import Durability
from tests.conformance.kinds import KAFKA

DAY_MS = 86_400_000
SAFE = {"retention.ms": str(8 * DAY_MS)}
BATCH_HEADER_BYTES = 61
LZ4 = 3


@asynccontextmanager
async def admin(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """The server, seen by the plain client."""
    client = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def make_topic(url: str, name: str, partitions: int = 3, **configs: str) -> None:
    async with admin(url) as client:
        await client.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])


async def settings_of(url: str, name: str) -> dict[str, str]:
    async with admin(url) as client:
        answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}


async def offsets_of(url: str, group: str) -> dict[int, int]:
    async with admin(url) as client:
        found = await client.list_consumer_group_offsets(group)
    return {partition.partition: offset.offset for partition, offset in found.items()}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    assert KAFKA.make_server
    server = KAFKA.make_server(False)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def harness(server: Server) -> AsyncIterator[Harness]:
    harness = Harness(KAFKA, server)
    yield harness
    await harness.close()
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def with_durability(harness: Harness, durability: Durability) -> KafkaBroker:
    broker = KafkaBroker(Endpoint.of(harness.server.url), name="test", durability=durability)
    harness._brokers.append(broker)
    await broker.start()
    await until(lambda: broker.connected)
    return broker


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", str(7 * DAY_MS)),
        ("retention.bytes", "1000000"),
        ("unclean.leader.election.enable", "true"),
        ("compression.type", "zstd"),
    ],
)
async def test_a_topic_that_could_lose_messages_is_refused_by_name(harness: Harness, setting: str, value: str) -> None:
    broker, topic = await harness.broker(), fresh()
    await make_topic(harness.server.url, topic, **{**SAFE, setting: value})
    with pytest.raises(BrokerError, match=setting) as refused:
        await broker.ensure(topic, ["readers"])
    assert not isinstance(refused.value, BrokerUnavailable)


async def test_a_safe_topic_made_by_others_is_taken_as_it_is(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await make_topic(harness.server.url, topic, **{"retention.ms": "-1", "max.message.bytes": "5000"})
    await broker.ensure(topic, ["readers"])
    settings = await settings_of(harness.server.url, topic)
    assert (settings["retention.ms"], settings["segment.ms"]) == ("-1", str(7 * DAY_MS))

    largest = bytes(broker.features.max_message_bytes)
    assert 4000 < len(largest) < 5000
    with pytest.raises(MessageTooLarge):
        await broker.publish(topic, largest + b"x", SOON_S)
    await broker.publish(topic, largest, SOON_S)
    assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [largest]


async def test_what_ensure_makes(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await asyncio.gather(*(broker.ensure(topic, ["readers", "others"]) for _ in range(3)))
    settings = await settings_of(harness.server.url, topic)
    assert settings["cleanup.policy"] == "delete"
    assert settings["retention.ms"] == str(8 * DAY_MS)
    assert settings["retention.bytes"] == "-1"
    assert settings["segment.ms"] == "3600000"
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert settings["unclean.leader.election.enable"] == "false"
    assert settings["min.insync.replicas"] == "1"
    assert settings["compression.type"] == "uncompressed"
    for group in ("readers", "others"):
        assert await offsets_of(harness.server.url, f"{topic}.{group}") == dict.fromkeys(range(12), 0)


@pytest.mark.parametrize(("durability", "flush"), [("relaxed", str(2**63 - 1)), ("fsync", "1")])
async def test_a_durability_sets_when_the_server_syncs(harness: Harness, durability: Durability, flush: str) -> None:
    broker, topic = await with_durability(harness, durability), fresh()
    await broker.ensure(topic, [])
    assert (await settings_of(harness.server.url, topic))["flush.messages"] == flush


async def test_fsync_refuses_a_topic_that_does_not(harness: Harness) -> None:
    broker, topic = await with_durability(harness, "fsync"), fresh()
    await make_topic(harness.server.url, topic, **SAFE)
    with pytest.raises(BrokerError, match=r"flush\.messages.*once all is counted"):
        await broker.ensure(topic, [])


@pytest.mark.parametrize(("durability", "acks"), [("relaxed", 1), ("confirmed", -1), ("fsync", -1)])
async def test_a_durability_says_whose_confirm_is_waited_for(
    harness: Harness, durability: Durability, acks: int
) -> None:
    """A server of one node confirms either way, so what is sent to it is looked at."""
    broker, topic = await with_durability(harness, durability), fresh()
    await broker.ensure(topic, [])
    link, frames = broker._cluster.any_link(), list[bytes]()
    write = link._write

    def note(number: int, frame: bytes) -> asyncio.Future[bytes]:
        frames.append(frame)
        return write(number, frame)

    link._write = note  # type: ignore[method-assign]
    await broker.publish(topic, b"body", SOON_S)
    request = BytesIO(frames[0])
    request.seek(4)
    RequestHeader_v1.SCHEMA.decode(request)
    assert ProduceRequest_v7.SCHEMA.decode(request)[:2] == (None, acks)


async def test_what_is_acknowledged_is_committed_up_to_the_first_gap(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await make_topic(harness.server.url, topic, 1, **SAFE)
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(10):
        await broker.publish(topic, body, SOON_S)
    messages = await take(reader, 10)
    await reader.acknowledge([*messages[:3], *messages[5:]])
    await until_committed(harness, topic, 3)
    await reader.acknowledge(messages[3:5])
    await until_committed(harness, topic, 10)


async def until_committed(harness: Harness, topic: str, offset: int) -> None:
    async with asyncio.timeout(SOON_S):
        while await offsets_of(harness.server.url, f"{topic}.readers") != {0: offset}:
            await asyncio.sleep(0.02)


async def test_a_member_that_holds_messages_keeps_them_and_holds_up_nobody(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    busy = await broker.subscribe(topic, "readers")
    for body in numbered(6):
        await broker.publish(topic, body, SOON_S)
    held = await take(busy, 6)

    async with asyncio.timeout(SOON_S):
        other = await broker.subscribe(topic, "readers")
    for body in numbered(12):
        await broker.publish(topic, body, SOON_S)
    theirs = await take(other, 1)
    theirs += await take(other, 11, 1.0)
    assert 0 < len(theirs) < 12

    await busy.acknowledge(held)
    await other.acknowledge(theirs)
    found = [*theirs]
    async with asyncio.timeout(SOON_S):
        while len(found) < 12:
            for member in (busy, other):
                messages = await member.fetch(12, 2**20, 0.2)
                await member.acknowledge(messages)
                found += messages
    assert bodies(found) == numbered(12)


async def test_members_come_and_go_under_load_and_each_message_comes_once(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    wanted, found = numbered(1500), list[bytes]()
    leaving: set[Subscription] = set()

    async def read(member: Subscription) -> None:
        """As a consumer does: nothing is left unacknowledged at the end."""
        while member not in leaving:
            messages = await member.fetch(20, 2**20, 0.05)
            await asyncio.sleep(0.02)
            await member.acknowledge(messages)
            found.extend(message.body for message in messages)
        await member.close()

    async def publish() -> None:
        for body in wanted:
            await broker.publish(topic, body, SOON_S)

    publishing = asyncio.create_task(publish())
    first = await broker.subscribe(topic, "readers")
    reading = [asyncio.create_task(read(first))]
    for _ in range(10):
        member = await broker.subscribe(topic, "readers")
        reading.append(asyncio.create_task(read(member)))
        await asyncio.sleep(0.1)
        leaving.add(member)
    await publishing
    await until(lambda: len(found) >= len(wanted))
    leaving.add(first)
    await asyncio.gather(*reading)
    assert sorted(found) == wanted


async def test_an_acknowledgement_from_before_a_rebalance_does_no_harm(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    silent = await (await harness.broker(redeliver_after_s=0.3)).subscribe(topic, "readers")
    for body in numbered(5):
        await broker.publish(topic, body, SOON_S)
    stale = await take(silent, 5)
    await until(lambda: not silent_is_member(silent), SOON_S)

    other = await broker.subscribe(topic, "readers")
    again = await take(other, 5)
    await silent.acknowledge(stale)
    await other.close()
    third = await broker.subscribe(topic, "readers")
    assert bodies(await take(third, 5)) == bodies(again) == numbered(5)


def silent_is_member(subscription: Subscription) -> bool:
    return subscription._reader is not None  # type: ignore[attr-defined]


async def test_a_silent_member_comes_back_when_it_fetches(harness: Harness) -> None:
    broker, topic = await harness.broker(redeliver_after_s=0.3), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    await until(lambda: not silent_is_member(reader))
    await broker.publish(topic, b"for the late", SOON_S)
    assert bodies(await take(reader, 1)) == [b"for the late"]


async def test_a_deleted_topic_ends_publish_and_fetch_and_ensure_makes_it_anew(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(50):
        await broker.publish(topic, body, SOON_S)
    stale = await take(reader, 50)
    waiting = asyncio.create_task(reader.fetch(1, 1, 60.0))
    async with admin(harness.server.url) as client:
        await client.delete_topics([topic])
    async with asyncio.timeout(SOON_S):
        with pytest.raises(BrokerUnavailable):
            await waiting
        with pytest.raises(BrokerUnavailable):
            await publish_for_ever(broker, topic)

    await persistently(lambda: broker.ensure(topic, ["readers"]))
    await reader.acknowledge(stale)
    for body in numbered(50):
        await broker.publish(topic, body, SOON_S)
    assert bodies(await take(reader, 50)) == numbered(50)


async def publish_for_ever(broker: Broker, topic: str) -> None:
    while True:
        await broker.publish(topic, b"nowhere", 60.0)


async def test_an_offset_of_a_topic_of_the_same_name_is_not_taken_over(harness: Harness) -> None:
    """An acknowledgement may come after the topic was deleted and made anew: what it commits must not skip anything."""
    broker, topic = await harness.broker(), fresh()
    await make_topic(harness.server.url, topic, 1, **SAFE)
    await broker.ensure(topic, [])
    for body in numbered(5):
        await broker.publish(topic, body, SOON_S)
    async with plain_consumer(harness.server.url, f"{topic}.readers") as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.commit({partition: OffsetAndMetadata(4, "the id of another topic")})
    with pytest.raises(BrokerError):
        await broker.subscribe(topic, "readers")
    await broker.ensure(topic, ["readers"])
    assert bodies(await take(await broker.subscribe(topic, "readers"), 5)) == numbered(5)


@asynccontextmanager
async def plain_consumer(url: str, group: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=url.removeprefix("kafka://"), group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def test_where_others_share_in_another_way_nobody_joins(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    async with plain_consumer(harness.server.url, f"{topic}.readers", topic):
        with pytest.raises(BrokerUnavailable, match="InconsistentGroupProtocol"):
            await broker.subscribe(topic, "readers")
    await broker.publish(topic, b"in peace", SOON_S)
    async with asyncio.timeout(SOON_S):
        reader = await joined(broker, topic)
    assert bodies(await take(reader, 1)) == [b"in peace"]


async def joined(broker: Broker, topic: str) -> Subscription:
    while True:
        try:
            return await broker.subscribe(topic, "readers")
        except BrokerUnavailable:
            await asyncio.sleep(0.05)


async def test_messages_that_the_server_deleted_are_passed_over(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await make_topic(harness.server.url, topic, 1, **SAFE)
    await broker.ensure(topic, ["readers"])
    for body in numbered(10):
        await broker.publish(topic, body, SOON_S)
    async with admin(harness.server.url) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=7)})
    assert bodies(await take(await broker.subscribe(topic, "readers"), 3)) == numbered(10)[7:]


async def test_partitions_that_are_added_are_read(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await make_topic(harness.server.url, topic, 1, **SAFE)
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    async with admin(harness.server.url) as client:
        await client.create_partitions({topic: NewPartitions(3)})
    wanted, found, used = itertools.count(), set[bytes](), set[int]()
    async with asyncio.timeout(SOON_S):
        while len(used) < 3:
            body = b"%d" % next(wanted)
            await broker.publish(topic, body, SOON_S)
            while body not in found:
                messages = await reader.fetch(10, 2**20, 1.0)
                await reader.acknowledge(messages)
                found.update(bodies(messages))
                used.update(message.receipt.partition.number for message in messages)


async def test_what_a_plain_producer_compressed_is_read(harness: Harness) -> None:
    broker, topic = await harness.broker(), fresh()
    await make_topic(harness.server.url, topic, **SAFE, **{"compression.type": "producer"})
    await broker.ensure(topic, ["readers"])
    producer = AIOKafkaProducer(
        bootstrap_servers=harness.server.url.removeprefix("kafka://"), compression_type="gzip", linger_ms=50
    )
    await producer.start()
    await asyncio.gather(*[await producer.send(topic, body) for body in numbered(20)])
    await producer.stop()
    assert bodies(await take(await broker.subscribe(topic, "readers"), 20)) == numbered(20)


async def test_what_was_packed_in_any_way_is_read_from_a_topic_of_our_own(harness: Harness) -> None:
    broker, topic = await with_durability(harness, "confirmed"), fresh()
    await broker.ensure(topic, ["readers"])
    await publish_as_lz4(broker, topic, numbered(5))
    assert bodies(await take(await broker.subscribe(topic, "readers"), 5)) == numbered(5)


async def test_a_batch_that_cannot_be_read_is_one_message_and_holds_up_no_other(harness: Harness) -> None:
    """There is no codec for it in the test environment, so that a producer's bytes are made by hand."""
    broker, topic = await with_durability(harness, "confirmed"), fresh()
    await make_topic(harness.server.url, topic, 1, **SAFE, **{"compression.type": "producer"})
    await broker.ensure(topic, ["readers"])
    await broker.publish(topic, b"before", SOON_S)
    packed = await publish_as_lz4(broker, topic, numbered(5))
    await broker.publish(topic, b"behind", SOON_S)

    reader = await broker.subscribe(topic, "readers")
    messages = await take(reader, 3)
    found = {message.body for message in messages}
    assert found >= {b"before", b"behind"}
    (raw,) = found - {b"before", b"behind"}
    assert raw.endswith(packed)
    await reader.acknowledge([message for message in messages if message.body != raw])
    await until_committed(harness, topic, 5)  # whose batch the server gives as a whole
    await reader.close()
    reader = await broker.subscribe(topic, "readers")
    messages = await take(reader, 1)
    assert bodies(messages)[0] == raw
    await reader.acknowledge([*messages, *await take(reader, 1)])
    await until_committed(harness, topic, 7)


async def publish_as_lz4(broker: KafkaBroker, topic: str, wanted: Sequence[bytes]) -> bytes:
    """Publish one batch to partition 0, and return what it was packed to: a frame whose only block is not made smaller,
    which LZ4 allows."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**20)
    for number, body in enumerate(wanted):
        builder.append(number, int(time.time() * 1000), None, body, [])
    plain = bytes(builder.build())
    header, unpacked = bytearray(plain[:BATCH_HEADER_BYTES]), plain[BATCH_HEADER_BYTES:]
    size = struct.pack("<I", len(unpacked) | 1 << 31)
    packed = b"\x04\x22\x4d\x18\x60\x40\x82" + size + unpacked + bytes(4)
    struct.pack_into(">i", header, 8, len(header) - 12 + len(packed))
    struct.pack_into(">h", header, 21, LZ4)
    struct.pack_into(">I", header, 17, calc_crc32c(bytes(header[21:]) + packed))

    found = await broker._cluster.topic(topic)
    assert found is not None
    request = ProduceRequest_v7(None, -1, 5000, [(topic, [(0, bytes(header) + packed)])])
    link = broker._cluster.link_to(found.leaders[0])
    ((_, ((_, code, *_),)),) = decode(request, await link.send(request)).topics
    assert code == 0
    return packed


async def test_a_log_that_lost_its_tail_is_read_again_and_the_lower_offset_committed(harness: Harness) -> None:
    """A group that stands beyond the end of the log looks the same: messages were confirmed, and the server lost them.
    What the next member goes on from must not be beyond what comes then."""
    broker, topic = await with_durability(harness, "confirmed"), fresh()
    await make_topic(harness.server.url, topic, 1, **SAFE)
    await broker.ensure(topic, ["readers"])
    for body in numbered(3):
        await broker.publish(topic, body, SOON_S)
    async with plain_consumer(harness.server.url, f"{topic}.readers") as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.commit({partition: OffsetAndMetadata(5, await topic_id(broker, topic))})

    with capture_logs() as logs:
        reader = await broker.subscribe(topic, "readers")
        messages = await take(reader, 3)
    assert bodies(messages) == numbered(3)
    (told,) = [entry for entry in logs if entry["event"] == "confirmed_messages_lost_by_server"]
    assert (told["log_level"], told["topic"], told["partition"]) == ("warning", topic, 0)
    await until_committed(harness, topic, 0)
    await reader.acknowledge(messages)
    await until_committed(harness, topic, 3)
    await reader.close()

    for body in numbered(6)[3:]:
        await broker.publish(topic, body, SOON_S)
    assert bodies(await take(await broker.subscribe(topic, "readers"), 3)) == numbered(6)[3:]


async def topic_id(broker: KafkaBroker, topic: str) -> str:
    found = await broker._cluster.topic(topic)
    assert found is not None
    return found.id


def test_what_was_held_of_a_lost_tail_is_not_taken_for_what_came_in_its_place() -> None:
    holdings = Holdings()
    holdings.take_over(Share([0]), {0: 8})
    lost = holdings.partitions[0]
    holdings.receive(lost, records(8))
    stale = holdings.take(4, 2**20, 10)
    holdings.begin_again(lost, 6)
    assert list(holdings.to_commit().values()) == [6]

    again = holdings.partitions[0]
    holdings.receive(again, records(6))
    fresh_ones = holdings.take(4, 2**20, 10)
    assert bodies(fresh_ones) == [b"6", b"7", b"8", b"9"]
    holdings.acknowledge(stale)
    assert again.done_offset == 6
    holdings.acknowledge(fresh_ones)
    assert holdings.to_commit() == {again: 10}


@pytest.mark.parametrize(
    ("replicas", "in_sync", "durability", "refused"),
    [
        (1, "1", "confirmed", False),
        (3, "1", "confirmed", True),
        (3, "1", "fsync", True),
        (2, "1", "confirmed", True),
        (3, "1", "relaxed", False),
        (3, "2", "confirmed", False),
        (2, "2", "fsync", False),
    ],
)
def test_replicas_of_which_one_may_confirm_alone_are_refused_by_name(
    replicas: int, in_sync: str, durability: Durability, refused: bool
) -> None:
    settings = {"min.insync.replicas": in_sync, "flush.messages": "1"}
    with pytest.raises(BrokerError, match=r"min\.insync\.replicas") if refused else nullcontext():
        check_settings("ratings", settings, replicas, durability)


async def test_the_replicas_of_a_topic_are_known(harness: Harness) -> None:
    """Which the server of one node has one of, at most."""
    broker, topic = await with_durability(harness, "confirmed"), fresh()
    await broker.ensure(topic, [])
    found = await broker._cluster.topic(topic)
    assert found is not None
    assert found.replicas == 1


@pytest.mark.parametrize("url", ["kafka://", "kafka://:9092", "kafka://host:port", "kafka://host:1,", "kafka://:p@h:1"])
def test_a_url_that_names_no_servers_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BROKER_URL"):
        KafkaBroker(Endpoint.of(url), name="test")


@given(
    st.integers(1, 30),
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sets(st.integers(0, 29)), min_size=1, max_size=15),
)
def test_shares_are_even_whole_and_leave_everyone_what_it_holds(partitions: int, claims: dict[str, set[int]]) -> None:
    given_out = shares(partitions, claims)
    read = [number for share in given_out.values() for number in share.partitions]
    drained = [number for share in given_out.values() for number in share.draining]
    assert given_out.keys() == claims.keys()
    assert sorted([*read, *drained]) == list(range(partitions))
    for member, share in given_out.items():
        assert len(share.partitions) <= -(-partitions // len(claims))
        for number in share.partitions:
            assert number in claims[member] or not any(number in claim for claim in claims.values())
        assert set(share.draining) <= claims[member]
    if not drained:
        sizes = [len(share.partitions) for share in given_out.values()]
        assert max(sizes) - min(sizes) <= 1


@example(
    [("take", 1), ("take", 1), ("drain", 0), ("expire", 0), ("back", 0), ("acknowledge", 2)]  # 1 held, 0 thrown away
)
@given(st.lists(st.tuples(st.sampled_from(["take", "acknowledge", "expire", "drain", "back"]), st.integers(0, 5))))
def test_no_commit_passes_what_is_not_acknowledged_and_all_is_committed_in_the_end(
    steps: list[tuple[str, int]],
) -> None:
    """Whatever the order of things, and however often a partition is drained and comes back."""
    holdings = Holdings()
    committed: dict[int, int] = {0: 0}
    done: set[int] = set()
    out: list[Message] = []
    holdings.take_over(Share([0]), committed)
    for now, (step, number) in enumerate(steps):
        partition = holdings.partitions.get(0)
        if step == "take" and partition is not None and not partition.draining:
            holdings.receive(partition, records(partition.next_offset))
            out += holdings.take(number, 2**20, now + 3)
        if step == "acknowledge":
            acknowledged, out = out[:number], out[number:]
            holdings.acknowledge(acknowledged)
            done.update(int(message.body) for message in acknowledged)
        if step == "expire":
            holdings.expire(now)
        if step == "drain" and partition is not None:
            holdings.take_over(Share([], [0]), {})
        if step == "back":
            holdings.take_over(Share([0]), committed)
        committed.update({each.number: offset for each, offset in holdings.to_commit().items()})
        assert set(range(committed[0])) <= done

    holdings.take_over(Share([0]), committed)
    partition = holdings.partitions[0]
    end = partition.out_offset + 4
    holdings.expire(len(steps) + 3)
    for _ in range(end):
        if partition.next_offset < end:
            holdings.receive(partition, records(partition.next_offset))
        messages = holdings.take(100, 2**20, len(steps) + 3)
        holdings.acknowledge(messages)
        done.update(int(message.body) for message in messages)
    assert holdings.to_commit()[partition] == partition.next_offset >= end
    assert set(range(partition.next_offset)) <= done


def test_what_was_acknowledged_is_not_handed_out_again_when_a_partition_comes_back() -> None:
    holdings = Holdings()
    holdings.take_over(Share([0]), {0: 0})
    partition = holdings.partitions[0]
    holdings.receive(partition, records(0))
    holdings.take(1, 2**20, 1)
    held = holdings.take(2, 2**20, 9)
    holdings.take_over(Share([], [0]), {})
    holdings.expire(1)
    holdings.acknowledge(held[:1])
    holdings.take_over(Share([0]), {})
    holdings.receive(partition, records(partition.next_offset))
    assert bodies(holdings.take(10, 2**20, 9)) == [b"0", b"3"]


def records(start: int) -> Collection[tuple[int, bytes | None, int]]:
    return [(offset, b"%d" % offset, offset + 1) for offset in range(start, start + 4)]
