"""What only Redis Streams has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
import structlog

from brokers import redis_member
from brokers.base import Subscription
from brokers.conformance.harness import SOON_S, Harness, Server, bodies, fresh, numbered, persistently, take, until
from brokers.redis_streams import RedisBroker, keys
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, SettingsError
from core.settings import Durability
from stack import parts
from tests.conformance.kinds import REDIS
from tests.conformance.server import StackServer
from tests.servers import needs


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Any]:
    """The server, seen by the plain client."""
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    assert REDIS.make_server
    server = REDIS.make_server(False)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def on_shared(server: Server) -> AsyncIterator[Harness]:
    harness = Harness(REDIS, server)
    yield harness
    await harness.close()


@asynccontextmanager
async def connected(url: str, durability: Durability = "confirmed") -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(Endpoint.of(url), name="test", durability=durability)
    await broker.start()
    try:
        await until(lambda: broker.connected)
        yield broker
    finally:
        await broker.close()


@pytest.mark.parametrize(
    ("durability", "setting", "value"),
    [
        ("relaxed", "maxmemory-policy", "allkeys-lru"),
        ("confirmed", "maxmemory-policy", "volatile-ttl"),
        ("confirmed", "appendonly", "no"),
        ("confirmed", "appendfsync", "everysec"),
        ("fsync", "appendfsync", "no"),
        ("fsync", "no-appendfsync-on-rewrite", "yes"),
    ],
)
async def test_a_server_that_could_lose_messages_is_refused_by_name(
    server: Server, durability: Durability, setting: str, value: str
) -> None:
    async with plain(server.url) as client:
        before = {"appendfsync": "always" if durability == "fsync" else "no"}
        await client.config_set("appendfsync", before["appendfsync"])
        before |= await client.config_get(setting)
        await client.config_set(setting, value)
        try:
            async with connected(server.url, durability) as broker:
                with pytest.raises(BrokerError, match=f"{setting}='{value}' could lose messages"):
                    await broker.ensure(fresh(), ["readers"])
        finally:
            for name, wanted in (*before.items(), ("appendfsync", "no")):
                await client.config_set(name, wanted)


@pytest.mark.parametrize("durability", ["relaxed", "confirmed", "fsync"])
async def test_the_stack_runs_what_each_durability_wants(durability: Durability) -> None:
    needs("redis-server")
    server = StackServer(lambda directory: parts.redis_streams(directory, durability=durability))
    server.start()
    try:
        async with connected(server.url, durability) as broker, plain(server.url) as client:
            topic = fresh()
            await broker.ensure(topic, ["readers"])
            await broker.publish(topic, b"stored", SOON_S)
            found = await client.config_get("appendonly", "appendfsync")
    finally:
        server.close()
    assert found["appendonly"] == ("no" if durability == "relaxed" else "yes")
    assert durability == "relaxed" or found["appendfsync"] == ("always" if durability == "fsync" else "no")


async def test_a_user_that_may_not_ask_for_settings_is_warned_once(server: Server) -> None:
    async with plain(server.url) as client:
        await client.execute_command("ACL", "SETUSER", "few", "on", ">p%@ss", "~fanrate:*", "+@all", "-@admin", "-info")
    url = server.url.replace("redis://", "redis://few:p%25%40ss@")
    with structlog.testing.capture_logs() as logs:
        async with connected(url) as broker:
            topic = fresh()
            await broker.ensure(topic, ["readers"])
            await broker.ensure(topic, ["readers"])
            await broker.publish(topic, b"stored", SOON_S)
            assert bodies(await take(await broker.subscribe(topic, "readers"), 1)) == [b"stored"]
    assert [line["event"] for line in logs].count("broker_settings_unknown") == 1
    assert "p%" not in repr(logs)


async def test_a_wrong_password_is_told_once_and_tried_again(server: Server) -> None:
    broker = RedisBroker(Endpoint.of(server.url.replace("redis://", "redis://:wrong@")), name="test")
    with structlog.testing.capture_logs() as logs:
        await broker.start()
        await until(lambda: bool(logs))
        await asyncio.sleep(0.7)
        await broker.close()
    assert [line["event"] for line in logs] == ["broker_connect_failed"]
    assert "AUTH" in logs[0]["error"]


async def test_what_ensure_makes(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(max_topic_bytes=12345), fresh()
    await broker.ensure(topic, ["first", "second"])
    async with plain(on_shared.server.url) as client:
        groups = await client.xinfo_groups(f"fanrate:stream:{topic}")
        state = await client.hgetall(f"fanrate:stream:{topic}:state")
    assert {group["name"]: group["last-delivered-id"] for group in groups} == {"first": "0-0", "second": "0-0"}
    assert state == {"in": "0", "out": "0", "max": "12345", "groups": "2"}


async def test_a_key_that_is_not_a_topic_is_refused(on_shared: Harness) -> None:
    broker, topic, other = await on_shared.broker(), fresh(), fresh()
    async with plain(on_shared.server.url) as client:
        await client.set(keys(topic)[0], "text")
        await client.xadd(keys(other)[0], {"by": "hand"})
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await broker.ensure(topic, ["readers"])
    with pytest.raises(BrokerError, match=f"{keys(other)[1]} is missing"):
        await broker.ensure(other, ["readers"])


@pytest.mark.parametrize("lost", ["topic", "group", "state"])
async def test_nothing_is_confirmed_without_its_topic_and_all_its_groups(on_shared: Harness, lost: str) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["first", "second"])
    async with plain(on_shared.server.url) as client:
        if lost == "group":
            await client.xgroup_destroy(keys(topic)[0], "second")
        else:
            await client.delete(keys(topic)[lost == "state"])
    with pytest.raises(BrokerUnavailable):
        await broker.publish(topic, b"nowhere", SOON_S)
    await broker.ensure(topic, ["first", "second"])
    await broker.publish(topic, b"kept", SOON_S)
    for group in ("first", "second"):
        assert bodies(await take(await broker.subscribe(topic, group), 1)) == [b"kept"]


async def test_a_member_whose_topic_is_deleted_hears_of_it_and_goes_on_when_it_is_made_anew(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    waiting = asyncio.create_task(reader.fetch(1, 2**20, 60.0))
    await asyncio.sleep(0.05)
    async with plain(on_shared.server.url) as client:
        await client.delete(keys(topic)[0])
    async with asyncio.timeout(SOON_S):
        with pytest.raises(BrokerUnavailable, match=r"no longer exists|NOGROUP"):
            await waiting
    await broker.ensure(topic, ["readers"])
    await broker.publish(topic, b"new", SOON_S)
    assert bodies(await take(reader, 1)) == [b"new"]


async def test_messages_leave_the_stream_when_every_group_has_acknowledged_them(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["first", "second"])
    for body in numbered(20):
        await broker.publish(topic, body, SOON_S)
    readers = [await broker.subscribe(topic, group) for group in ("first", "second")]
    held = [await take(reader, 20) for reader in readers]
    async with plain(on_shared.server.url) as client:
        await readers[0].acknowledge(held[0])
        await readers[1].acknowledge(held[1][:5])
        await trimmed(client, topic, readers[1], 15)
        assert int(await client.hget(keys(topic)[1], "out")) > 0
        await readers[1].acknowledge(held[1][5:])
        await trimmed(client, topic, readers[1], 0)
        state = await client.hgetall(keys(topic)[1])
        assert state["in"] == state["out"]


async def trimmed(client: Any, topic: str, reader: Subscription, left: int) -> None:
    """`reader` trims as it fetches, and finds nothing."""
    async with asyncio.timeout(SOON_S):
        while await client.xlen(keys(topic)[0]) != left:
            assert await reader.fetch(1, 1, 0.3) == []
    assert await reader.fetch(1, 1, 0.3) == []
    assert await client.xlen(keys(topic)[0]) == left


async def test_nothing_is_trimmed_while_a_group_is_missing(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["first", "second"])
    await broker.publish(topic, b"for both", SOON_S)
    reader = await broker.subscribe(topic, "first")
    async with plain(on_shared.server.url) as client:
        await client.xgroup_destroy(keys(topic)[0], "second")
    await reader.acknowledge(await take(reader, 1))
    assert await reader.fetch(1, 1, 0.6) == []
    await reader.close()
    await broker.ensure(topic, ["second"])
    assert bodies(await take(await broker.subscribe(topic, "second"), 1)) == [b"for both"]


async def test_a_server_out_of_memory_refuses_and_can_be_joined_and_drained(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    for body in numbered(5):
        await broker.publish(topic, body, SOON_S)
    async with plain(on_shared.server.url) as client:
        await client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerFull, match="OOM"):
                await broker.publish(topic, b"too much", SOON_S)
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await broker.ensure(topic, ["more"])
            await broker.ensure(topic, ["readers"])
            reader = await broker.subscribe(topic, "readers")
            messages = await take(reader, 5)
            await reader.acknowledge(messages)
            assert bodies(messages) == numbered(5)
            await trimmed(client, topic, reader, 0)
        finally:
            await client.config_set("maxmemory", 0)
    await broker.publish(topic, b"room again", SOON_S)


async def test_a_fetch_reads_little_more_than_it_may_hand_out(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    for _ in range(60):
        await broker.publish(topic, bytes(100_000), SOON_S)
    reader = await broker.subscribe(topic, "readers")
    assert len(await reader.fetch(2048, 300_000, SOON_S)) == 3
    async with plain(on_shared.server.url) as client:
        assert (await client.xpending(keys(topic)[0], "readers"))["pending"] <= 8
    assert len(await take(reader, 57)) == 57


async def test_members_that_left_or_died_do_not_pile_up(on_shared: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    await broker.publish(topic, b"held by a dead one", SOON_S)
    async with plain(on_shared.server.url) as client:
        for dead in ("with", "without"):
            await client.xreadgroup("readers", dead, {keys(topic)[0]: ">"})
        monkeypatch.setattr(redis_member, "_FORGET_AFTER_MS", 1)
        await asyncio.sleep(0.01)
        await (await broker.subscribe(topic, "readers")).close()
        names = [consumer["name"] for consumer in await client.xinfo_consumers(keys(topic)[0], "readers")]
    assert names == ["with"]


async def test_a_member_whose_connection_is_cut_gets_again_what_it_held(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(redeliver_after_s=60.0), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    for body in numbered(3):
        await broker.publish(topic, body, SOON_S)
    stale = await take(reader, 3)
    async with plain(on_shared.server.url) as client:
        await client.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: not broker.connected)
    await until(lambda: broker.connected)
    again = await take(reader, 3)
    assert bodies(again) == numbered(3)
    await reader.acknowledge(stale)
    async with plain(on_shared.server.url) as client:
        assert (await client.xpending(keys(topic)[0], "readers"))["pending"] == 3
        await reader.acknowledge(again)
        async with asyncio.timeout(SOON_S):
            while (await client.xpending(keys(topic)[0], "readers"))["pending"]:
                await asyncio.sleep(0.02)


async def test_what_another_member_took_over_is_not_extended(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(redeliver_after_s=0.3), fresh()
    await broker.ensure(topic, ["readers"])
    slow, quick = [await broker.subscribe(topic, "readers") for _ in range(2)]
    await broker.publish(topic, b"work", SOON_S)
    lost = await take(slow, 1)
    assert bodies(await take(quick, 1)) == [b"work"]
    async with plain(on_shared.server.url) as client:
        (held,) = await client.xpending_range(keys(topic)[0], "readers", "-", "+", 1)
        await slow.extend(lost)
        await slow.acknowledge([])
        await asyncio.sleep(0.1)
        (after,) = await client.xpending_range(keys(topic)[0], "readers", "-", "+", 1)
    assert after["consumer"] == held["consumer"]
    assert after["time_since_delivered"] >= 100


async def test_scripts_that_somebody_flushed_are_loaded_again(on_shared: Harness) -> None:
    broker, topic = await on_shared.broker(), fresh()
    await broker.ensure(topic, ["readers"])
    reader = await broker.subscribe(topic, "readers")
    async with plain(on_shared.server.url) as client:
        await client.script_flush()
    await persistently(lambda: broker.publish(topic, b"stored", SOON_S))
    assert bodies(await take(reader, 1)) == [b"stored"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://:6379",
        "redis://host:port",
        "redis://host:99999",
        "redis://host/name",
        "redis://host/0?db=1",
    ],
)
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BROKER_URL"):
        RedisBroker(Endpoint.of(url), name="test")
