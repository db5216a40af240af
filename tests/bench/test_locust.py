"""locust's users against the embedded service: their books are closed, or it is said why not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator

import aiohttp
import pytest

from bench.client import Address
from bench.reading import Reader
from stack.ports import HOST, free_port
from tests.docs.pages import ROOT

START_S = 30.0


@pytest.fixture
async def service() -> AsyncIterator[tuple[Process, str]]:
    """`python -m stack run`, which answers."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "stack", "run", "--port", str(port)], cwd=ROOT, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            while b"Ctrl-C stops it" not in (line := await process.stdout.readline()):
                assert line, "it ended at the start"
        yield process, f"http://{HOST}:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def started(url: str, *options: str, **env: str) -> Process:
    """Without its page."""
    return await with_page(url, "--headless", "--only-summary", *options, **env)


async def with_page(url: str, *options: str, **env: str) -> Process:
    arguments = ["-f", "bench/locustfile.py", "--host", url, *options]
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "locust", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATIENCE_S": "1", **env},
        stdout=PIPE,
        stderr=STDOUT,
    )


async def ended(locust: Process) -> tuple[int | None, list[str]]:
    """Its exit code and what it said."""
    try:
        async with asyncio.timeout(40):
            told, _ = await locust.communicate()
    finally:
        if locust.returncode is None:
            locust.kill()
    return locust.returncode, told.decode().splitlines()


async def test_what_was_confirmed_was_counted(service: tuple[Process, str]) -> None:
    _, url = service
    code, lines = await ended(await started(url, "--users", "5", "--spawn-rate", "5", "--run-time", "2s"))
    assert lines[-1] == "LOSS 0 DUP 0"
    assert code == 0
    assert int(lines[-2].split()[0]) > 20
    named = {" ".join(line[:80].split()) for line in lines}
    assert named > {"POST /rate", "POST /rate (key)", "GET /rates/{subject}", "GET /top"}


async def test_the_page_tells_what_happens_and_ctrl_c_closes_the_books(service: tuple[Process, str]) -> None:
    """As `make locust` starts it."""
    _, url = service
    page = f"http://{HOST}:{free_port()}"
    where = ["--autostart", "--web-host", HOST, "--web-port", page.rpartition(":")[2]]
    locust = await with_page(url, "--users", "3", "--spawn-rate", "3", *where)
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
            while "POST /rate" not in await _sent(session, page):
                await asyncio.sleep(0.1)
            async with session.get(page) as response:
                assert "Locust" in await response.text()
    finally:
        locust.send_signal(signal.SIGINT)
    code, lines = await ended(locust)
    assert "LOSS 0 DUP 0" in lines
    assert code == 0


async def _sent(session: aiohttp.ClientSession, page: str) -> set[str]:
    """The names of requests that the page counts."""
    try:
        async with session.get(f"{page}/stats/requests") as response:
            told = await response.json()
    except aiohttp.ClientError:
        return set()
    return {f"{each['method']} {each['name']}" for each in told["stats"] if each["num_requests"]}


async def test_a_service_that_is_killed(service: tuple[Process, str]) -> None:
    process, url = service
    locust = await started(url, "--users", "5", "--spawn-rate", "5", "--run-time", "3s")
    reader = Reader(Address.of(url))
    async with asyncio.timeout(START_S):
        while not (await reader.totals()).count:
            await asyncio.sleep(0.05)
    reader.close()
    process.send_signal(signal.SIGKILL)
    code, lines = await ended(locust)
    assert code == 1
    assert lines[-1].startswith("the service is gone, with ")
    assert "confirmed rates unaccounted for: no connection to " in lines[-1]


async def test_a_service_that_is_not_there() -> None:
    code, lines = await ended(await started("http://127.0.0.1:1", "--users", "1"))
    assert code == 1
    assert any(line.startswith("no Fanrate can be read at http://127.0.0.1:1: ") for line in lines)


async def test_steps_end_where_the_bound_is_broken(service: tuple[Process, str]) -> None:
    """No answer comes within a microsecond."""
    _, url = service
    code, lines = await ended(await started(url, "--users", "20", SHAPE="steps", P99_MS="0.001"))
    assert code == 0
    assert lines[-1] == "LOSS 0 DUP 0"
    assert lines[-3].startswith("no step was good: already with 2 users, ")


async def test_a_bound_that_is_none() -> None:
    code, lines = await ended(await started("http://127.0.0.1:1", P99_MS="nan"))
    assert code == 2
    assert "P99_MS=nan: takes a number above 0" in lines
