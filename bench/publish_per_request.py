"""The usual way, to compare with: each request publishes. `python -m bench.publish_per_request PORT NATS_URL`."""

from __future__ import annotations

import itertools
import sys
import time
from uuid import uuid4

import nats
import uvloop
from aiohttp import web

from core.batches import VERSION, Batch, encode

PRODUCER = uuid4().hex
sequences = itertools.count()


async def application(nats_url: str) -> web.Application:
    stream = (await nats.connect(nats_url)).jetstream()

    async def handle(request: web.Request) -> web.Response:
        rate = (request.query["subject"], int(request.query["rate"]))
        sequence = next(sequences)
        batch = Batch(VERSION, 0, PRODUCER, sequence, sequence + 1, time.time(), [rate])
        await (await stream.publish_async("rates", encode(batch)))
        return web.Response()

    app = web.Application()
    app.router.add_post("/rate", handle)
    return app


if __name__ == "__main__":
    app, port, loop = application(sys.argv[2]), int(sys.argv[1]), uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)
