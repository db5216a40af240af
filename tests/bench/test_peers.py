"""The peers against real brokers: each request is one message, and is answered once the broker has it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from bench import holdings
from bench.client import Address, Connection
from bench.holdings import GROUP
from bench.peers import PEERS, NotBuilt, Peer
from bench.peers.building import say
from brokers.base import Broker as Port
from brokers.conformance.harness import Kind
from brokers.redis_streams import keys
from core.errors import SettingsError
from core.rates import Rate
from stack.programs import MissingProgram
from stack.supervisor import Stack
from stack.topology import Broker
from tests.bench.conftest import SOON_S
from tests.conformance.kinds import REDIS
from tests.conformance.server import StackServer

THERE_IN_CI = {"aiohttp-publish", "fastapi-faststream"}
"""Go is, where its toolchain is; mq-bridge takes ten minutes."""
GO_S = 60.0
"""How long it may be built for. What was compiled until then is not lost: the next time takes less."""
RATES: Sequence[Rate] = [(f"film-{number}", number * 7 % 101) for number in range(50)]
CONNECTIONS = 7
SILENT_S = 0.3
JSON = re.compile(rb"\{.*\}", re.DOTALL)


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By one worker; the others wait."""
    recipe = PEERS["go"].recipe
    assert recipe is not None
    with (tmp_path_factory.getbasetemp().parent / "go.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not recipe.is_built:
            with suppress(NotBuilt):
                recipe.build(say, within_s=GO_S)


@pytest.fixture(params=PEERS.values(), ids=PEERS)
def peer(request: pytest.FixtureRequest, kind: Kind) -> Peer:
    """One that is there and publishes to this kind of broker."""
    found: Peer = request.param
    if kind.name not in found.brokers:
        pytest.skip(f"{found.title} does not publish to {kind.name}")
    if found.name == "go":
        request.getfixturevalue("go")
    try:
        found.check()
    except (NotBuilt, MissingProgram) as exc:
        if found.name in THERE_IN_CI and os.environ.get("CI"):
            raise
        pytest.skip(str(exc))
    return found


async def test_each_request_is_one_message_that_the_broker_has_before_the_answer(
    peer: Peer, kind: Kind, broker_server: StackServer, port: Port, topic: str, tmp_path: Path
) -> None:
    async with Stack(tmp_path) as stack:
        part = peer.part(tmp_path, broker_url=broker_server.url, topic=topic, durability="confirmed", name="peer")
        member = await stack.start(part, supervised=False)
        address = Address.of(member.url)
        async with connections(address) as opened:
            before = asyncio.gather(*(send(peer, address, opened[n], RATES[1 + n :: CONNECTIONS]) for n in range(7)))
            assert {status for each in await before for status in each} == {peer.confirmed}
            broker_server.freeze()
            try:
                last = asyncio.create_task(send(peer, address, opened[0], RATES[:1]))
                answered, _ = await asyncio.wait({last}, timeout=SILENT_S)
                assert not answered
            finally:
                broker_server.thaw()
            assert await last == [peer.confirmed]
        held = await holdings.read(cast(Broker, kind.name), broker_server.url, topic, broker_server.directory / "data")
        assert held.messages == held.depth == len(RATES)
        assert held.ever in (len(RATES), None)
        assert await member.stop() in (0, -15)
    assert sorted(await stored(kind, port, broker_server.url, topic)) == sorted(RATES)


@asynccontextmanager
async def connections(address: Address) -> AsyncIterator[list[Connection]]:
    opened = [Connection(address, timeout_s=SOON_S) for _ in range(CONNECTIONS)]
    yield opened
    for connection in opened:
        connection.close()


async def send(peer: Peer, address: Address, connection: Connection, rates: Sequence[Rate]) -> list[int]:
    return [(await connection.exchange(peer.request(address, rate).wire)).status for rate in rates]


async def stored(kind: Kind, port: Port, url: str, topic: str) -> list[Rate]:
    """What the messages of `topic` say, whatever stands around it."""
    bodies = await entries(url, topic) if kind is REDIS else await fetched(port, topic)
    told = [json.loads(found[0]) for body in bodies if (found := JSON.search(body))]
    return [(each["subject"], each["rate"]) for each in told]


async def entries(url: str, topic: str) -> list[bytes]:
    async with Redis.from_url(url) as client:
        return [b"".join(fields.values()) for _, fields in await client.xrange(keys(topic)[0])]


async def fetched(port: Port, topic: str) -> list[bytes]:
    subscription = await port.subscribe(topic, GROUP)
    bodies: list[bytes] = []
    async with asyncio.timeout(SOON_S):
        while len(bodies) < len(RATES):
            bodies += [message.body for message in await subscription.fetch(100, 2**20, 1.0)]
    await subscription.close()
    return bodies


def test_what_a_peer_has_none_for_is_refused_by_name(tmp_path: Path) -> None:
    for peer in PEERS.values():
        for url, durability in (("nats://127.0.0.1:4222", "relaxed"), ("nats+core://127.0.0.1:4222", "confirmed")):
            with pytest.raises(SettingsError):
                peer.part(tmp_path, broker_url=url, topic="t", durability=durability, name="peer")  # type: ignore[arg-type]
