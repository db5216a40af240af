"""A server that behaves as a test tells it, and requests to it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from bench.client import Address
from bench.load import Request, rate_request

Behaviour = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Server:
    """Counts what arrives, then answers as `behaviour` does."""

    def __init__(self) -> None:
        self.arrived: Counter[str] = Counter()
        self.keys: list[str | None] = []
        self.behaviour: Behaviour = answer_200
        self.address = Address("127.0.0.1", 0)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.arrived[request.query.get("subject", "")] += 1
        self.keys.append(request.headers.get("Idempotency-Key"))
        return await self.behaviour(request)


async def answer_200(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


def requests(address: Address, keyed: bool = False) -> Iterator[Request]:
    """Without end, each on a subject of its own."""
    for number in itertools.count():
        yield rate_request(address, (f"film-{number}", number % 101), f"key-{number}" if keyed else "")
