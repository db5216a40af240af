"""The open loop against real servers that behave as told, one of which is frozen."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bench.client import Address
from bench.generator import do_nothing
from bench.ledger import Ledger
from bench.load import OpenLoopReport, film_requests, rate_request, rates_request
from bench.open_loop import full_speed, open_loop
from bench.pacing import OutOfFiles
from bench.schedule import Schedule
from core.lifecycle import until
from tests.bench.conftest import Serve
from tests.bench.servers import Behaviour, Server, requests

FROZEN_S = 1.0


async def test_the_schedule_is_kept(server: Server) -> None:
    ledger = Ledger()
    report = await open_loop([server.address], requests(server.address), ledger, Schedule(400, 0.5), connections=8)
    assert report.statuses == {200: 200}
    assert server.arrived.total() == ledger.sent_rates == ledger.confirmed_rates == report.latency.count == 200
    assert report.unsent == 0
    assert 0.49 < report.seconds < 5


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
    report = await open_loop([server.address], requests(server.address), Ledger(), Schedule(200, 1), connections=4)
    assert report.latency.share_above(0.1) >= 60 / 200
    assert report.latency.percentile_s(99) > 0.4
    assert report.latency.percentile_s(10) < 0.1
    assert report.unsent == 0


async def test_falling_behind_is_detected(server: Server) -> None:
    async def slowly(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response()

    server.behaviour = slowly
    ledger = Ledger()
    report = await open_loop([server.address], requests(server.address), ledger, Schedule(500, 0.3), connections=2)
    assert report.fell_behind
    assert report.unsent > 100
    assert f"{report.unsent} of 150 requests found no free connection in time" in report.void
    assert report.unsent + ledger.sent_rates == 150


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


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A server below HTTP."""
    wire = Wire()
    server = await asyncio.get_running_loop().create_server(wire.connection, "127.0.0.1", 0)
    wire.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    yield wire
    server.close()


class Wire:
    """Says `answers`, one after the other, each in its pieces; without end the last one."""

    def __init__(self) -> None:
        self.address = Address("127.0.0.1", 0)
        self.answers: list[list[bytes]] = [[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]]
        self.connections = 0

    def connection(self) -> asyncio.Protocol:
        self.connections += 1
        return _Speaker(self)

    def next_answer(self) -> list[bytes]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Speaker(asyncio.Protocol):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._say(self._wire.next_answer())

    def _say(self, pieces: list[bytes]) -> None:
        """One piece at a time, so that they arrive apart; an empty one ends the connection."""
        if not pieces:
            return
        if not pieces[0]:
            self._transport.close()
            return
        self._transport.write(pieces[0])
        asyncio.get_running_loop().call_later(0.01, self._say, pieces[1:])


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "statuses", "broken", "connections"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nab", b"cde"], {200: 2}, 0, 1),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok", b""], {200: 2}, 0, 2),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], {204: 1, 200: 1}, 0, 1),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nno!"], {503: 1, 200: 1}, 0, 1),
        ([OK + OK], {200: 2}, 0, 2),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], {200: 1}, 1, 2),
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], {200: 1}, 1, 2),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b""], {200: 1}, 1, 2),
        ([b""], {200: 1}, 1, 2),
    ],
)
async def test_answers_as_servers_give_them(
    wire: Wire, answer: list[bytes], statuses: dict[int, int], broken: int, connections: int
) -> None:
    wire.answers.insert(0, answer)
    report = await open_loop([wire.address], requests(wire.address), Ledger(), Schedule(10, 0.2), connections=1)
    assert (report.statuses, report.broken) == (statuses, broken)
    assert report.confirmed == statuses[200]
    assert wire.connections == connections


async def test_a_server_that_has_not_answered_in_time(server: Server) -> None:
    async def never(_: web.BaseRequest) -> web.StreamResponse:
        if server.arrived.total() == 1:
            await asyncio.sleep(30)
        return web.Response()

    server.behaviour = never
    ledger = Ledger()
    report = await open_loop(
        [server.address], requests(server.address), ledger, Schedule(20, 0.5), connections=2, timeout_s=0.6
    )
    assert (report.silent, report.statuses) == (1, {200: 9})
    assert (ledger.sent_rates, ledger.unknown_rates) == (10, 1)


async def test_a_server_that_is_not_there_and_comes(serve: Serve, server: Server) -> None:
    """What was refused never left; what waited meanwhile is told with its wait."""
    listener = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = Address("127.0.0.1", listener.sockets[0].getsockname()[1])
    listener.close()
    await listener.wait_closed()
    ledger, report = Ledger(), OpenLoopReport()
    load = asyncio.create_task(
        open_loop([address], requests(address), ledger, Schedule(50, 1), connections=2, report=report)
    )
    await asyncio.sleep(0.3)
    site = web.ServerRunner(web.Server(server.handle, access_log=None), shutdown_timeout=0.1)
    await site.setup()
    await web.TCPSite(site, address.host, address.port).start()
    await load
    await site.cleanup()
    assert report.refused >= 2
    assert report.confirmed == ledger.confirmed_rates == ledger.sent_rates == 50 - report.refused > 20
    assert report.unsent == 0


async def test_other_products_confirm_in_other_words(server: Server) -> None:
    async def accepted(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=202 if server.arrived.total() % 2 else 400)

    server.behaviour = accepted
    ledger = Ledger()
    report = await open_loop(
        [server.address],
        requests(server.address),
        ledger,
        Schedule(100, 0.2),
        connections=2,
        confirmed_statuses=(200, 202),
    )
    assert report.statuses == {202: 10, 400: 10}
    assert (report.confirmed, report.failed, report.latency.count) == (10, 10, 10)
    assert ledger.sent_rates == ledger.confirmed_rates == 10


async def test_many_rates_in_one_request(server: Server) -> None:
    bodies: list[bytes] = []

    async def read(request: web.BaseRequest) -> web.StreamResponse:
        bodies.append(await request.read())
        assert request.content_type == "application/json"
        return web.json_response({"accepted": 2})

    server.behaviour = read
    request = rates_request(server.address, [("film-1", 5), ("film-2", 7)])
    ledger = Ledger()
    await open_loop([server.address], itertools.repeat(request), ledger, Schedule(50, 0.1), connections=1)
    assert bodies == [b'[{"rate":5,"subject":"film-1"},{"rate":7,"subject":"film-2"}]'] * 5
    assert (ledger.sent_rates, ledger.confirmed_rates, ledger.subjects) == (10, 10, ["film-1", "film-2"])


async def test_connections_are_spread_over_the_addresses(serve: Serve) -> None:
    """And requests over the connections."""
    servers = [Server(), Server(), Server()]
    peers: list[Counter[object]] = [Counter(), Counter(), Counter()]

    def noting(number: int) -> Behaviour:
        async def note(request: web.BaseRequest) -> web.StreamResponse:
            assert request.transport
            peers[number][request.transport.get_extra_info("peername")] += 1
            return web.Response()

        return note

    for number, server in enumerate(servers):
        server.behaviour = noting(number)
    addresses = [await serve(server.handle) for server in servers]
    report = await open_loop(addresses, requests(addresses[0]), Ledger(), Schedule(300, 0.3), connections=6)
    assert report.confirmed == 90
    assert [len(peer) for peer in peers] == [2, 2, 2]
    assert all(20 <= peer.total() <= 40 for peer in peers)


async def test_a_frozen_server_shows_and_does_not_make_the_run_void() -> None:
    """SIGSTOP for a second. What was due in its first half takes more than half a second; a loop that waits for answers
    has one slow request for each of its connections, however long the server stands."""
    async with do_nothing() as server:
        disturbed = False
        for _ in range(5):
            report = OpenLoopReport()
            await _freeze_meanwhile(asyncio.create_task(_load(server.address, report)), report, server.pid)
            if not report.fell_behind:
                break
            calm = OpenLoopReport()
            await _load(server.address, calm)
            disturbed = disturbed or calm.fell_behind
        assert not report.fell_behind or disturbed, report
        assert report.confirmed == report.scheduled == 1500
        assert report.latency.percentile_s(99.9) > 0.9 * FROZEN_S
        assert 0.2 < report.latency.share_above(FROZEN_S / 2) < 0.6
        closed = OpenLoopReport()
        load = full_speed(
            [server.address], film_requests(server.address), Ledger(), seconds=1.5, connections=4, report=closed
        )
        await _freeze_meanwhile(asyncio.create_task(load), closed, server.pid)
        assert 0 < closed.latency.share_above(FROZEN_S / 2) < 0.05


async def _load(address: Address, report: OpenLoopReport) -> None:
    schedule = Schedule(1000, 1.5)
    await open_loop([address], film_requests(address), Ledger(), schedule, connections=4, report=report)


async def _freeze_meanwhile(load: asyncio.Task[object], report: OpenLoopReport, pid: int) -> None:
    assert await until(lambda: report.confirmed >= 200, 10)
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S)
    os.kill(pid, signal.SIGCONT)
    await load


async def test_a_generator_that_is_kept_from_its_work_is_void() -> None:
    """Its loop is held up by another's callback, now and then."""
    loop = asyncio.get_running_loop()

    def hog() -> None:
        time.sleep(0.05)
        loop.call_later(0.1, hog)

    async with do_nothing() as server:
        loop.call_later(0.1, hog)
        report = await open_loop(
            [server.address], film_requests(server.address), Ledger(), Schedule(500, 0.7), connections=64
        )
    assert report.unsent == 0
    assert report.late
    assert report.fell_behind
    assert report.lateness.percentile_s(99) > 0.02


@pytest.mark.parametrize(
    ("late_s", "latency_s", "late"),
    [(0.0015, 0.0016, False), (0.015, 0.016, True), (0.003, 0.05, False), (0.015, 0.05, True), (0.025, 1, True)],
)
def test_a_generator_whose_own_delay_shows_in_the_latencies_is_void(
    late_s: float, latency_s: float, late: bool
) -> None:
    report = OpenLoopReport(scheduled=1, scheduled_s=1.0)
    report.lateness.record(late_s)
    report.latency.record(latency_s)
    report.confirmed_at.append(latency_s)
    assert report.late is late
    assert report.void == (
        f"the generator itself fell behind, {late_s * 1000:.1f} ms late (p99), 0.0 s without a pause" if late else ""
    )


@pytest.mark.parametrize(
    ("failed", "cut_short", "void"), [(0, 0, ""), (1, 1, ""), (2, 0, "2 of 1001 requests"), (8, 7, "")]
)
def test_requests_without_a_confirm_make_it_void(failed: int, cut_short: int, void: str) -> None:
    report = OpenLoopReport(Counter({200: 999}), scheduled=999 + failed, silent=failed, cut_short=cut_short)
    report.confirmed_at.extend([1.0] * 999)
    assert report.void == (f"{void} were not confirmed" if void else "")


async def test_a_generator_that_cannot_keep_up_is_void() -> None:
    """More than any core carries: requests pile up in the generator, or in a server that the machine keeps from its
    work, and then they do not leave."""
    async with do_nothing() as server:
        report = await open_loop(
            [server.address], film_requests(server.address), Ledger(), Schedule(200_000, 0.5), connections=64
        )
    assert report.fell_behind
    assert report.void
    assert report.cpu_s > 0


async def test_a_cancelled_loop_has_written_its_books(server: Server) -> None:
    async def slow(_: web.BaseRequest) -> web.StreamResponse:
        if server.arrived.total() > 5:
            await asyncio.sleep(30)
        return web.Response()

    server.behaviour = slow
    ledger, report = Ledger(), OpenLoopReport()
    load = asyncio.create_task(
        open_loop([server.address], requests(server.address), ledger, Schedule(100, 60), connections=2, report=report)
    )
    assert await until(lambda: server.arrived.total() >= 7, 10)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert (ledger.confirmed_rates, ledger.unknown_rates) == (5, 2)
    assert (report.statuses, report.silent) == ({200: 5}, 2)
    assert report.cut_short < 2


async def test_a_loop_that_runs_out_of_requests_says_so(server: Server) -> None:
    with pytest.raises(RuntimeError, match="no next request"):
        await open_loop(
            [server.address],
            iter([rate_request(server.address, ("film-1", 1))]),
            Ledger(),
            Schedule(100, 1),
            connections=1,
        )


async def test_files_that_run_out_are_not_the_servers_refusal(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        with pytest.raises(OutOfFiles, match="no 64 connections can be opened here: Too many open files"):
            await full_speed([server.address], requests(server.address), Ledger(), seconds=0.1, connections=64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_full_speed_lasts_as_long_as_it_is_told(server: Server) -> None:
    ledger = Ledger()
    report = await full_speed([server.address], requests(server.address), ledger, seconds=0.3, connections=4)
    assert report.confirmed == ledger.confirmed_rates == server.arrived.total() > 50
    assert 0.25 < report.seconds < 5
