"""The generators against a real server that behaves as told."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from bench.client import Address, Broken, Connection, Refused, Silent
from bench.ledger import Ledger
from bench.load import Request, closed_loop, percentile, rate_request
from bench.open_loop import open_loop
from bench.schedule import Schedule

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


@pytest.fixture
async def server(serve: Callable[[Behaviour], Awaitable[Address]]) -> Server:
    server = Server()
    server.address = await serve(server.handle)
    return server


def requests(address: Address, keyed: bool = False) -> itertools.chain[Request]:
    """Without end, each on a subject of its own."""
    return itertools.chain.from_iterable(
        [rate_request(address, (f"film-{number}", number % 101), f"key-{number}" if keyed else "")]
        for number in itertools.count()
    )


async def test_the_schedule_is_kept(server: Server) -> None:
    ledger = Ledger()
    report = await open_loop([server.address], requests(server.address), ledger, Schedule(200, 1), connections=8)
    assert report.statuses == {200: 200}
    assert server.arrived.total() == ledger.sent_rates == ledger.confirmed_rates == report.latency.count == 200
    assert report.unsent == 0
    assert report.seconds == pytest.approx(1, abs=0.3)


async def test_a_schedule_may_be_broken_off(server: Server) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, stop.set)
    report = await open_loop(
        [server.address], requests(server.address), Ledger(), Schedule(200, 60), connections=8, stop=stop
    )
    assert report.seconds < 5
    assert 50 <= report.answered == server.arrived.total() <= 1000
    assert report.unsent == 0


async def test_a_stall_of_the_server_shows_in_the_latencies(server: Server) -> None:
    """A closed loop would note one slow request per connection; on a schedule all that were due meanwhile are slow."""
    stalled = asyncio.Event()

    async def stall(_: web.BaseRequest) -> web.StreamResponse:
        if server.arrived.total() == 100:
            asyncio.get_running_loop().call_later(0.5, stalled.set)
        if server.arrived.total() >= 100:
            await stalled.wait()
        return web.Response()

    server.behaviour = stall
    report = await open_loop([server.address], requests(server.address), Ledger(), Schedule(200, 2), connections=4)
    assert report.latency.share_above(0.1) >= 60 / 400
    assert report.latency.percentile_s(99) > 0.4
    assert report.latency.percentile_s(10) < 0.1
    assert not report.late
    assert report.unsent == 0


async def test_falling_behind_is_detected(server: Server) -> None:
    async def slowly(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response()

    server.behaviour = slowly
    ledger = Ledger()
    report = await open_loop([server.address], requests(server.address), ledger, Schedule(500, 1), connections=2)
    assert report.fell_behind
    assert report.unsent > 300
    assert report.unsent + ledger.sent_rates == 500


async def test_a_generator_that_wakes_up_late_says_so(server: Server) -> None:
    """The server shares the generator's event loop here and holds it up."""

    async def hog(_: web.BaseRequest) -> web.StreamResponse:
        if server.arrived.total() % 10 == 0:
            time.sleep(0.1)  # noqa: ASYNC251 - to block the loop is the point
        return web.Response()

    server.behaviour = hog
    report = await open_loop([server.address], requests(server.address), Ledger(), Schedule(50, 1), connections=16)
    assert report.unsent == 0
    assert report.fell_behind


async def test_a_connection_cut_under_load_is_unknown_and_the_load_goes_on(server: Server) -> None:
    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        if server.arrived.total() in (10, 20, 30) and request.transport:
            request.transport.close()
        return web.Response()

    server.behaviour = cut
    ledger = Ledger()
    report = await open_loop([server.address], requests(server.address), ledger, Schedule(200, 0.5), connections=4)
    assert report.broken == 3
    assert report.statuses == {200: 97}
    assert (ledger.sent_rates, ledger.confirmed_rates, ledger.unknown_rates) == (100, 97, 3)
    assert server.arrived.total() == 100


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
