"""FastAPI and FastStream, as their documentation shows them: one publish per request, answered once it is confirmed.

`python -P bench/peers/fastapi_app.py PORT BROKER_URL DESTINATION`, by a Python that has bench/peers/requirements.in.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Response

CONFIRM_TIMEOUT_S = 5.0
"""As long as the service's own requests wait; FastStream gives up on JetStream after half a second otherwise."""

Message = Mapping[str, int | str]
Publish = Callable[[Message], Awaitable[object]]


@asynccontextmanager
async def to_nats(url: str, subject: str) -> AsyncIterator[Publish]:
    from faststream.nats import NatsBroker

    async with NatsBroker(url) as broker:
        await broker.start()
        yield lambda message: broker.publish(message, subject, stream=subject, timeout=CONFIRM_TIMEOUT_S)


@asynccontextmanager
async def to_kafka(url: str, topic: str) -> AsyncIterator[Publish]:
    from faststream.kafka import KafkaBroker

    async with KafkaBroker(urlsplit(url).netloc.split(","), acks="all", enable_idempotence=True) as broker:
        await broker.start()
        yield lambda message: broker.publish(message, topic)


@asynccontextmanager
async def to_rabbit(url: str, topic: str) -> AsyncIterator[Publish]:
    from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange

    exchange = RabbitExchange(topic, type=ExchangeType.FANOUT, durable=True, declare=False)
    # Without the second, what no queue takes is confirmed.
    channel = Channel(publisher_confirms=True, on_return_raises=True)
    async with RabbitBroker(url, default_channel=channel) as broker:
        await broker.start()
        yield lambda message: broker.publish(message, exchange=exchange, persist=True, timeout=CONFIRM_TIMEOUT_S)


@asynccontextmanager
async def to_redis(url: str, stream: str) -> AsyncIterator[Publish]:
    from faststream.redis import RedisBroker

    async with RedisBroker(url) as broker:
        await broker.start()
        yield lambda message: broker.publish(message, stream=stream)


BROKERS: dict[str, Callable[[str, str], AbstractAsyncContextManager[Publish]]] = {
    "nats": to_nats,
    "kafka": to_kafka,
    "amqp": to_rabbit,
    "redis": to_redis,
}


def application(url: str, destination: str) -> FastAPI:
    publishing: Publish

    @asynccontextmanager
    async def connected(_: FastAPI) -> AsyncIterator[None]:
        nonlocal publishing
        async with BROKERS[urlsplit(url).scheme](url, destination) as publishing:
            yield

    app = FastAPI(lifespan=connected)

    @app.post("/rate")
    async def take(rate: int, subject: str) -> Response:
        await publishing({"rate": rate, "subject": subject})
        return Response()

    return app


def main(port: int, url: str, destination: str) -> None:
    uvicorn.run(
        application(url, destination),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        server_header=False,
        date_header=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
