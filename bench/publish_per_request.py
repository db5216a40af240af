"""The usual way, to compare with: each request publishes by itself.

`python -m bench.publish_per_request PORT BROKER_URL [DURABILITY [TOPIC]]`

Each client is used as its documentation shows it for the fastest confirmed publish of one message: all its requests
share one connection, none waits for another. What is published goes where the service's own batches go, so that the
service counts it; with a TOPIC it goes there, and is the plain rate as JSON, as those of other peers are.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import nats
import uvloop
from aiohttp import web
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]

from core.batches import VERSION, Batch, encode
from core.rates import Rate
from core.settings import Durability

TOPIC = "rates"
PRODUCER = uuid4().hex
sequences = itertools.count()

Publish = Callable[[bytes], Awaitable[None]]


@asynccontextmanager
async def to_nats(url: str, _: Durability, topic: str) -> AsyncIterator[Publish]:
    client = await nats.connect(url)
    stream = client.jetstream()

    async def publish(body: bytes) -> None:
        await (await stream.publish_async(topic, body))

    yield publish
    await client.close()


@asynccontextmanager
async def to_kafka(
    url: str, durability: Durability, topic: str = TOPIC, *, linger_ms: int = 0
) -> AsyncIterator[Publish]:
    servers, sure = urlsplit(url).netloc.split(","), durability != "relaxed"
    # One that sends again by itself stores doubles otherwise.
    async with AIOKafkaProducer(
        bootstrap_servers=servers, acks="all" if sure else 1, enable_idempotence=sure, linger_ms=linger_ms
    ) as producer:

        async def publish(body: bytes) -> None:
            await producer.send_and_wait(topic, body)

        yield publish


@asynccontextmanager
async def to_rabbit(url: str, durability: Durability, topic: str) -> AsyncIterator[Publish]:
    relaxed = durability == "relaxed"
    mode = aio_pika.DeliveryMode.NOT_PERSISTENT if relaxed else aio_pika.DeliveryMode.PERSISTENT
    async with await aio_pika.connect(url) as connection:
        # What no queue takes is returned, and confirmed nevertheless.
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(topic)

        async def publish(body: bytes) -> None:
            await exchange.publish(aio_pika.Message(body, delivery_mode=mode), routing_key="")

        yield publish


CLIENTS: dict[str, Callable[[str, Durability, str], AbstractAsyncContextManager[Publish]]] = {
    "nats": to_nats,
    "kafka": to_kafka,
    "amqp": to_rabbit,
}


def as_batch(rate: Rate) -> bytes:
    sequence = next(sequences)
    return encode(Batch(VERSION, 0, PRODUCER, sequence, sequence + 1, time.time(), [rate]))


def as_json(rate: Rate) -> bytes:
    return json.dumps({"rate": rate[1], "subject": rate[0]}).encode()


async def application(
    client: AbstractAsyncContextManager[Publish], encoded: Callable[[Rate], bytes] = as_batch
) -> web.Application:
    """POST /rate publishes one message by `client`, and is answered when that is confirmed."""
    connected = AsyncExitStack()
    publish = await connected.enter_async_context(client)

    async def handle(request: web.Request) -> web.Response:
        await publish(encoded((request.query["subject"], int(request.query["rate"]))))
        return web.Response()

    async def close(_: web.Application) -> None:
        await connected.aclose()

    app = web.Application()
    app.router.add_post("/rate", handle)
    app.on_cleanup.append(close)
    return app


def serve(port: int, client: AbstractAsyncContextManager[Publish], encoded: Callable[[Rate], bytes] = as_batch) -> None:
    loop = uvloop.new_event_loop()
    web.run_app(application(client, encoded), host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


def main(port: int, url: str, durability: Durability = "confirmed", topic: str = "") -> None:
    client = CLIENTS[urlsplit(url).scheme](url, durability, topic or TOPIC)
    serve(port, client, as_json if topic else as_batch)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])  # type: ignore[arg-type]  # the durability is checked by who starts it
