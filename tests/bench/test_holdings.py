"""What real brokers say that they hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from bench import holdings
from bench.holdings import GROUP, Holding, UnreadableBroker
from brokers.base import Broker as Port
from brokers.conformance.harness import Kind
from stack.ports import free_port
from stack.topology import Broker
from tests.bench.conftest import SOON_S
from tests.conformance.server import StackServer

SENT = 5
DONE = 2


async def read(kind: Kind, broker_server: StackServer, topic: str) -> Holding:
    return await holdings.read(cast(Broker, kind.name), broker_server.url, topic, broker_server.directory / "data")


async def test_what_was_stored_and_what_is_not_acknowledged(
    kind: Kind, broker_server: StackServer, port: Port, topic: str
) -> None:
    empty = await read(kind, broker_server, topic)
    assert (empty.messages, empty.depth) == (0, 0)
    for _ in range(SENT):
        await port.publish(topic, b"x" * 1000, SOON_S)
    full = await read(kind, broker_server, topic)
    assert (full.messages, full.depth) == (SENT, SENT)
    assert full.bytes >= SENT * 1000
    await settle(port, topic, DONE)
    async with asyncio.timeout(SOON_S):
        while (left := await read(kind, broker_server, topic)).depth != SENT - DONE:
            await asyncio.sleep(0.05)
    # Kafka keeps for days what is done.
    assert left.messages == (SENT if kind.name == "kafka" else SENT - DONE)
    assert left.ever == (None if kind.name == "rabbit" else SENT)


async def settle(port: Port, topic: str, messages: int) -> None:
    """Acknowledge so many, and leave the rest as it was."""
    subscription = await port.subscribe(topic, GROUP)
    async with asyncio.timeout(SOON_S):
        while messages:
            fetched = await subscription.fetch(messages, 2**20, 1.0)
            await subscription.acknowledge(fetched)
            messages -= len(fetched)
    await subscription.close()


async def test_a_topic_that_is_not_there(kind: Kind, broker_server: StackServer) -> None:
    with pytest.raises(UnreadableBroker, match="none"):
        await read(kind, broker_server, "none")


@pytest.mark.parametrize("broker", ["nats", "kafka", "rabbit", "redis", "nats+core"])
async def test_a_broker_that_is_not_there(broker: Broker, tmp_path: Path) -> None:
    scheme = "amqp" if broker == "rabbit" else broker
    with pytest.raises(UnreadableBroker, match=broker.replace("+", r"\+")):
        await holdings.read(broker, f"{scheme}://127.0.0.1:{free_port()}", "t", tmp_path)


def test_a_file_with_holes_takes_what_it_takes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "full").write_bytes(b"x" * 10_000)
    with (folder / "laid out").open("wb") as file:
        file.truncate(10**9)
    assert 10_000 <= holdings.on_disk_bytes(tmp_path) < 10**6
