"""What wrk says, and what it means for the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from bench import wrk
from bench.bars import Bar
from bench.client import Address
from tests.bench.servers import Server
from tests.servers import needs

LINE = b'{"requests":1000,"duration_us":2000000,"not_200":10,"connect":1,"read":2,"write":3,"timeout":4}'


def test_the_last_line_is_read() -> None:
    peak = wrk.parse(b"Running 2s test\n  990 requests in 2.00s\n\n" + LINE + b"\n")
    assert (peak.confirmed, peak.per_s) == (990, 495)


def test_requests_under_way_at_the_end_may_have_counted() -> None:
    peak = wrk.parse(LINE.replace(b"}", b',"connections":64,"rates_per_request":1000}'))
    assert peak.confirmed_rates == 990_000
    assert peak.sent_rates == (1000 + 64 + 2 + 3 + 4) * 1000


def test_silence_is_an_error() -> None:
    with pytest.raises(wrk.WrkFailed, match="unable to connect"):
        wrk.parse(b"unable to connect to 127.0.0.1:1 Connection refused\n")


@pytest.mark.parametrize(
    ("script", "path", "rates"), [("rate", "/rate", 1), ("rates", "/rates", 1000), ("message", "/", 1)]
)
async def test_wrk_sends_what_the_ledger_is_told(
    serve: Callable[..., Awaitable[Address]], script: wrk.Script, path: str, rates: int
) -> None:
    needs("wrk")
    arrived: Counter[str] = Counter()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        arrived[request.path] += 1
        if rates > 1:
            assert len(await request.json()) == rates
        elif script == "message":
            assert (await request.json()).keys() == {"rate", "subject"}
        return web.Response()

    peak = await wrk.run(await serve(handle), script, connections=4, seconds=1)
    assert arrived.keys() == {path}
    assert peak.confirmed_rates <= arrived[path] * rates <= peak.sent_rates
    assert peak.confirmed > 0
    assert peak.not_200 == 0


@pytest.mark.parametrize(
    ("value", "at_most", "outcome"),
    [
        (1.0, True, "met"),
        (1.1, True, "met"),
        (1.2, True, "MISSED"),
        (1.2, False, "met"),
        (1.0, False, "MISSED"),
        (None, True, "void"),
    ],
)
def test_a_bar_is_met_on_its_side_and_never_by_a_void_run(value: float | None, at_most: bool, outcome: str) -> None:
    bar = Bar("measure", "ms", 1.1, at_most, value)
    assert bar.met is (outcome == "met")
    assert str(bar).endswith(outcome)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage: wrk ... -s bench/wrk/bytes.lua URL -- FILE"),
        (["/nowhere/requests"], "/nowhere/requests: No such file or directory"),
    ],
)
async def test_requests_from_no_file(server: Server, arguments: list[str], told: str) -> None:
    needs("wrk")
    with pytest.raises(wrk.WrkFailed) as caught:
        await wrk.told(server.address, "bytes", connections=1, seconds=1, arguments=arguments)
    assert str(caught.value) == told


async def test_threads_begin_elsewhere_and_what_is_told_is_what_wrk_prints(
    serve: Callable[..., Awaitable[Address]],
) -> None:
    needs("wrk")
    first: dict[int, str] = {}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport
        first.setdefault(request.transport.get_extra_info("peername")[1], request.query["subject"])
        return web.Response()

    output = await wrk.told(await serve(handle), "rate", connections=5, threads=5, seconds=1)
    assert len(set(first.values())) == len(first) == 5
    assert "Thread Stats" in output
    confirmed = wrk.peak(output, "rate", connections=5).confirmed
    assert f"\n{confirmed} requests answered 200, " in output
