"""The closed loop and its client against a real server that behaves as told."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest
from aiohttp import web

from bench.client import Address, Broken, Connection, Refused, Silent
from bench.ledger import Ledger
from bench.load import closed_loop, percentile
from tests.bench.servers import Server, requests


async def test_a_key_is_sent_again_until_it_is_confirmed_and_is_one_rate(server: Server) -> None:
    async def unwilling(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=200 if server.arrived[request.query["subject"]] > 2 else 503)

    server.behaviour = unwilling
    ledger = Ledger()
    three = itertools.islice(requests(server.address, keyed=True), 3)
    report = await closed_loop(server.address, three, ledger, connections=2, retry=True)
    assert report.statuses == {503: 6, 200: 3}
    assert Counter(server.keys) == {"key-0": 3, "key-1": 3, "key-2": 3}
    assert (ledger.sent_rates, ledger.confirmed_rates) == (3, 3)


@pytest.mark.parametrize(("status", "unknown"), [(503, 1), (400, 0), (413, 0)])
async def test_what_a_status_means_for_the_ledger(server: Server, status: int, unknown: int) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status)

    server.behaviour = answer
    ledger = Ledger()
    one = itertools.islice(requests(server.address), 1)
    report = await closed_loop(server.address, one, ledger, connections=1)
    assert report.failed == 1
    assert ledger.unknown_rates == unknown


async def test_a_closed_loop_ends_when_told(server: Server) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, stop.set)
    ledger = Ledger()
    report = await closed_loop(server.address, requests(server.address), ledger, connections=4, stop=stop)
    assert report.statuses[200] == server.arrived.total() == ledger.confirmed_rates > 0
    first_s, last_s = report.confirmed_at[0], report.confirmed_at[-1]
    assert report.next_confirm_s(first_s - 1) == pytest.approx(1)
    assert report.next_confirm_s(last_s + 1) is None


async def test_connections_are_kept_and_reopened_when_the_server_closes_them(server: Server) -> None:
    ports: list[int] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        ports.append(request.transport.get_extra_info("peername")[1] if request.transport else 0)
        response = web.Response(body=b"x" * 200_000)
        if len(ports) == 2:
            response.force_close()
        return response

    server.behaviour = note
    connection = Connection(server.address)
    for _ in range(4):
        answer = await connection.get("/")
        assert (answer.status, len(answer.body)) == (200, 200_000)
    connection.close()
    assert ports[0] == ports[1] != ports[2] == ports[3]


async def test_what_goes_wrong_has_a_name(server: Server) -> None:
    async def never(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    server.behaviour = never
    silent = Connection(server.address, timeout_s=0.1)
    with pytest.raises(Silent):
        await silent.get("/")

    async def chunks(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    server.behaviour = chunks
    with pytest.raises(Broken):
        await silent.get("/")
    silent.close()
    with pytest.raises(Refused):
        await Connection(Address("127.0.0.1", 1)).get("/")


async def test_nothing_that_never_left_is_unknown() -> None:
    ledger = Ledger()
    one = itertools.islice(requests(Address("127.0.0.1", 1)), 1)
    report = await closed_loop(Address("127.0.0.1", 1), one, ledger, connections=1)
    assert report.refused == report.failed == 1
    assert ledger.sent_rates == 0


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_percentiles_are_nearest_rank(percent: float, value: float) -> None:
    assert percentile([3, 1, 4, 2], percent) == value
