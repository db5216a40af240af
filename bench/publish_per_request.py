"""The usual way, to compare with: each request publishes by itself.

`python -m bench.publish_per_request PORT BROKER_URL [DURABILITY]`

Each client is used as its documentation shows it for the fastest confirmed publish of one message: all its requests
share one connection, none waits for another. What is published goes where the service's own batches go, so that the
service counts it.
"""

from __future__ import annotations

import itertools
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
from core.settings import Durability

TOPIC = "rates"
PRODUCER = uuid4().hex
sequences = itertools.count()

Publish = Callable[[bytes], Awaitable[None]]


@asynccontextmanager
async def to_nats(url: str, _: Durability) -> AsyncIterator[Publish]:
    client = await nats.connect(url)
    stream = client.jetstream()

    async def publish(body: bytes) -> None:
        await (await stream.publish_async(TOPIC, body))

    yield publish
    await client.close()


@asynccontextmanager
async def to_kafka(url: str, durability: Durability, *, linger_ms: int = 0) -> AsyncIterator[Publish]:
    acks = 1 if durability == "relaxed" else "all"
    servers = urlsplit(url).netloc.split(",")
    async with AIOKafkaProducer(bootstrap_servers=servers, acks=acks, linger_ms=linger_ms) as producer:

        async def publish(body: bytes) -> None:
            await producer.send_and_wait(TOPIC, body)

        yield publish


@asynccontextmanager
async def to_rabbit(url: str, durability: Durability) -> AsyncIterator[Publish]:
    relaxed = durability == "relaxed"
    mode = aio_pika.DeliveryMode.NOT_PERSISTENT if relaxed else aio_pika.DeliveryMode.PERSISTENT
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(TOPIC)

        async def publish(body: bytes) -> None:
            await exchange.publish(aio_pika.Message(body, delivery_mode=mode), routing_key="")

        yield publish


CLIENTS: dict[str, Callable[[str, Durability], AbstractAsyncContextManager[Publish]]] = {
    "nats": to_nats,
    "kafka": to_kafka,
    "amqp": to_rabbit,
}


async def application(client: AbstractAsyncContextManager[Publish]) -> web.Application:
    """POST /rate publishes one message by `client`, and is answered when that is confirmed."""
    connected = AsyncExitStack()
    publish = await connected.enter_async_context(client)

    async def handle(request: web.Request) -> web.Response:
        rate = (request.query["subject"], int(request.query["rate"]))
        sequence = next(sequences)
        batch = Batch(VERSION, 0, PRODUCER, sequence, sequence + 1, time.time(), [rate])
        await publish(encode(batch))
        return web.Response()

    async def close(_: web.Application) -> None:
        await connected.aclose()

    app = web.Application()
    app.router.add_post("/rate", handle)
    app.on_cleanup.append(close)
    return app


def serve(port: int, client: AbstractAsyncContextManager[Publish]) -> None:
    loop = uvloop.new_event_loop()
    web.run_app(application(client), host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


def main(port: int, url: str, durability: Durability = "confirmed") -> None:
    serve(port, CLIENTS[urlsplit(url).scheme](url, durability))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])  # type: ignore[arg-type]  # the durability is checked by who starts it
