"""Messages on the topic that no replica of this version has sent."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from bench.client import Address, Connection
from core.counting import GROUP
from process.redrive import letters
from tests.trouble.served import SOON_S, ServedWorld, metric_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEWER = b'{"version":2,"rates":"in a form not thought of yet"}'


@pytest.mark.smoke("nats")
async def test_messages_that_no_one_can_parse(served: ServedWorld) -> None:
    """Dead letters, one of them cut because it is too large for one; what comes after them is counted."""
    async with served.services("odd") as services, served.adapter() as broker, services.load() as load:
        small, large = b"\xffno batch", bytes(broker.features.max_message_bytes)
        for body in (small, large):
            await broker.publish(services.topic, body, SOON_S)
        async with asyncio.timeout(SOON_S):
            while await metric_of(services.process, "dead_letters") < 2:
                await load.run_for(0.05)
        await load.grows("counted after them", services.counted)
        assert (await load.stop()).failed == 0
        await load.settle()
        found = [letter async for letter in letters(broker, services.topic)]
    assert {letter.sha256: letter.cut for letter in found} == {_digest(small): False, _digest(large): True}
    assert {letter.reason for letter in found} == {"malformed"}
    assert {letter.length_bytes for letter in found} == {len(small), len(large)}


@pytest.mark.smoke("nats")
async def test_a_message_of_a_newer_version(served: ServedWorld) -> None:
    """The consumer stops, red, and leaves it with the broker."""
    async with served.services("newer") as services, served.adapter() as broker, services.load() as load:
        await broker.publish(services.topic, NEWER, SOON_S)
        connection = Connection(Address.of(services.process.url))
        try:
            async with asyncio.timeout(SOON_S):
                while b"newer message" not in (await connection.get("/readyz")).body:
                    await load.run_for(0.05)
            assert (await connection.get("/readyz")).status == 503
            assert (await connection.get("/healthz")).status == 200
        finally:
            connection.close()
        assert (await load.stop()).failed == 0
        assert (await load.opened()).opened == await load.waiting()
        await services.process.kill()
        reader = await broker.subscribe(services.topic, GROUP)
        async with asyncio.timeout(2 * SOON_S + served.kind.silent_s):
            while all(message.body != NEWER for message in await reader.fetch(256, 2**22, 1.0)):
                pass


def _digest(body: bytes) -> str:
    return sha256(body).hexdigest()
