"""Clients that stall, talk nonsense or go away; and a drain that breaks no connection."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest

import core.http
from tests.api.conftest import StartService, counted, ready

RATE = b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = RATE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def answer_to(url: str, *parts: bytes) -> bytes:
    """All that is answered until the connection ends."""
    reader, writer = await connect(url)
    for part in parts:
        writer.write(part)
        await writer.drain()
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("start_of_header", [b"", b"POST /rate?rate=5 HTTP/1.1\r\nHost:", b"P"])
async def test_a_header_that_stalls_is_cut(
    start: StartService, monkeypatch: pytest.MonkeyPatch, start_of_header: bytes
) -> None:
    monkeypatch.setattr(core.http, "HEADER_TIMEOUT_S", 0.2)
    service = await start()
    assert await answer_to(service.url, start_of_header) == b""


async def test_a_second_header_that_stalls_is_cut(start: StartService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.http, "IDLE_TIMEOUT_S", 0.3)
    service = await start()
    answer = await answer_to(service.url, RATE, RATE[:20])
    assert answer.count(b"HTTP/1.1 200 OK") == 1


async def test_a_body_that_stalls_is_told_and_cut(start: StartService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.http, "BODY_TIMEOUT_S", 0.2)
    service = await start()
    header = b"POST /rate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    answer = await answer_to(service.url, header, b'{"rate"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:fanrate:problem:body-stalled" in answer
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"POST /rate?rate=5 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /rate?rate=5 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /rate?rate=5 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_so_and_cut(start: StartService, nonsense: bytes) -> None:
    service = await start()
    answer = await answer_to(service.url, nonsense)
    assert re.match(rb"HTTP/1\.[01] 400 ", answer)
    assert b"application/problem+json" in answer
    assert b"urn:fanrate:problem:bad-http" in answer


async def test_pipelined_requests_are_all_counted(start: StartService) -> None:
    service = await start()
    answer = await answer_to(service.url, RATE * 50, LAST)
    assert answer.count(b"HTTP/1.1 200 OK") == 51
    async with aiohttp.ClientSession(service.url) as client:
        await counted(client, 51)


async def test_the_short_answer_is_the_one_that_aiohttp_gives(start: StartService) -> None:
    """A kept HTTP/1.1 connection is answered the short way, one that must be told to close is not."""
    service = await start()
    short, long, end = (await answer_to(service.url, RATE, LAST)).split(b"\r\n\r\n")
    assert end == b""
    assert _headers(long) - _headers(short) == {b"Connection: close"}
    assert _headers(short) - _headers(long) == set()
    old = await answer_to(service.url, b"POST /rate?rate=5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + LAST)
    assert b"Connection: keep-alive" in old.split(b"\r\n\r\n")[0]
    assert old.count(b" 200 OK") == 2


def _headers(head: bytes) -> set[bytes]:
    return {re.sub(rb"^Date: .*", b"Date", line) for line in head.split(b"\r\n")}


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_requests_are_logged_when_asked_for(
    start: StartService, caplog: pytest.LogCaptureFixture, log_format: str
) -> None:
    service = await start(access_log=True, log_format=log_format)
    with caplog.at_level("INFO", "access"):
        assert b" 200 OK" in await answer_to(service.url, LAST)
        forwarded = b"\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
        nowhere = LAST.replace(b"/rate", b"/nothing").removesuffix(b"\r\n\r\n") + forwarded
        assert b" 404 Not Found" in await answer_to(service.url, nowhere)
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name == "access")
    assert "POST /rate?rate=5" in logged
    assert "404" in logged
    assert '127.0.0.1 "192.0.2.7"' in logged


@pytest.mark.parametrize(
    ("head", "status", "kind"),
    [
        (b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\nbroken", b"415", b"content-encoding"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nrate=\r\nnonsense\r\n", b"400", b"bad-http"),
    ],
)
async def test_a_broken_body(start: StartService, head: bytes, status: bytes, kind: bytes) -> None:
    service = await start()
    form = b"POST /rate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    answer = await answer_to(service.url, form + head)
    assert re.match(rb"HTTP/1\.[01] " + status, answer), answer
    assert b"urn:fanrate:problem:" + kind in answer


async def test_a_client_that_goes_away_in_its_body_is_no_error(
    start: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start()
    _, writer = await connect(service.url)
    writer.write(b"POST /rate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert (await answer_to(service.url, LAST)).startswith(b"HTTP/1.1 200 OK")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_idle_connection_is_closed_before_the_replica_refuses(start: StartService) -> None:
    """A kept connection never hears 503 from a replica that drains: it is closed while rates are still taken in."""
    service = await start()
    reader, writer = await connect(service.url)
    writer.write(RATE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    draining = asyncio.create_task(service.drain(5))
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert not draining.done()
    await draining
    writer.close()


async def test_a_client_that_reads_nothing_is_not_buffered_for_without_end(start: StartService) -> None:
    """Answers wait for room: requests beyond it are left in the client's socket."""
    service = await start()
    _, writer = await connect(service.url)
    writer.transport.set_write_buffer_limits(high=0)
    sent = 0
    while sent < 500_000 and await _takes(writer, RATE * 1000):
        sent += 1000
    assert sent < 500_000
    writer.transport.abort()


async def _takes(writer: asyncio.StreamWriter, data: bytes) -> bool:
    """Whether the server reads `data` within three seconds, which is longer than a machine pauses."""
    writer.write(data)
    try:
        await asyncio.wait_for(writer.drain(), 3)
    except TimeoutError:
        return False
    return True


async def test_a_rate_stays_in_its_batch_when_its_client_goes_away(start: StartService) -> None:
    service = await start()
    for _ in range(20):
        _, writer = await connect(service.url)
        writer.write(RATE)
        await writer.drain()
        writer.transport.abort()
    async with aiohttp.ClientSession(service.url) as client:
        async with asyncio.timeout(5):
            while (await (await client.get("/opened")).json())["opened"]:
                await asyncio.sleep(0.01)
        count = (await (await client.get("/rates")).json())["count"]
    assert 0 <= count <= 20


async def test_expect_continue(start: StartService) -> None:
    service = await start()
    reader, writer = await connect(service.url)
    writer.write(
        b"POST /rate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"rate":5}')
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_drain_breaks_no_connection_and_forgets_no_rate(start: StartService) -> None:
    """Clients that keep connections alive and go to another address once told to close, as nginx does."""
    service = await start()
    async with aiohttp.ClientSession(service.url) as client:
        await ready(client)
    confirmed = 0
    stopped = asyncio.Event()

    async def hammer() -> None:
        nonlocal confirmed
        reader, writer = await connect(service.url)
        while True:
            writer.write(RATE)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK"), answer
            confirmed += 1
            if b"Connection: close" in answer:
                assert await reader.read() == b""
                writer.close()
                return

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(hammer())
        await asyncio.sleep(0.3)
        await service.drain(5)
        stopped.set()
    assert confirmed > 40
    totals = await service._store.totals()
    assert totals.count == confirmed
    with pytest.raises(OSError, match=r".*"):
        await connect(service.url)
