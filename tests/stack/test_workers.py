"""WORKERS: several processes on one port, on real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import psutil
import pytest

from bench.client import Address, ClientError, Connection
from bench.reading import Reader
from core.commands import child
from core.http import listen
from core.lifecycle import until
from stack import parts
from stack.member import Member
from stack.ports import HOST, free_port
from stack.supervisor import Stack
from tests.servers import needs
from tests.trouble.load import load_on
from tests.trouble.world import metric_in

WORKERS = 2
SOON_S = 10.0
INTERRUPTED = 130

Start = Callable[..., Awaitable[Member]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts an API with workers, beside a broker, a Redis and a process."""
    needs("nats-server", "redis-server")
    async with Stack(tmp_path) as stack:
        nats = await stack.start(parts.nats(stack.directory))
        redis = await stack.start(parts.redis(stack.directory))
        urls = {"broker_url": nats.url, "store_url": redis.url}
        await stack.start(parts.process(stack.directory, **urls))

        async def start_api(**settings: str) -> Member:
            env = {"WORKERS": str(WORKERS), **settings}
            return await stack.start(parts.api(stack.directory, env=env, **urls))

        yield start_api


def workers_of(api: Member) -> list[psutil.Process]:
    return [each for each in psutil.Process(api.pid).children() if not _gone(each)]


def _gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def all_gone(workers: list[psutil.Process]) -> bool:
    return await until(lambda: all(map(_gone, workers)), SOON_S)


async def test_each_worker_takes_its_share(start: Start) -> None:
    first = free_port()
    api = await start(WORKER_HEALTH_PORT=str(first))
    assert len(workers_of(api)) == WORKERS
    for port in range(first, first + WORKERS):
        await ready_at(port)
    async with load_on(api.url) as load:
        await load.flows(500)
        await load.stop()
        await load.settle()
        assert [await confirmed_at(port) > 0 for port in range(first, first + WORKERS)] == [True] * WORKERS
        shares = [await confirmed_at(port) for port in range(first, first + WORKERS)]
        assert sum(shares) == load.ledger.confirmed_rates


async def ready_at(port: int) -> None:
    async with asyncio.timeout(SOON_S):
        while True:
            connection = Connection(Address(HOST, port), timeout_s=SOON_S)
            try:
                if (await connection.get("/readyz")).status == HTTPStatus.OK:
                    return
            except ClientError:
                pass  # it does not listen yet
            finally:
                connection.close()
            await asyncio.sleep(0.05)


async def confirmed_at(port: int) -> int:
    connection = Connection(Address(HOST, port), timeout_s=SOON_S)
    try:
        return metric_in((await connection.get("/metrics")).body, "confirmed_rates")
    finally:
        connection.close()


async def test_a_killed_worker_comes_back_while_the_others_serve(start: Start) -> None:
    api = await start()
    async with load_on(api.url) as load:
        await load.flows(100)
        before = workers_of(api)
        before[0].kill()
        await load.flows(100)
        assert await until(lambda: len(workers_of(api)) == WORKERS, SOON_S)
        assert {each.pid for each in workers_of(api)} != {each.pid for each in before}
        await load.flows(100)
        await load.stop()
        await load.settle(abandoned=True)


async def test_they_drain_together_and_break_no_connection(start: Start) -> None:
    api, other = await start(), await start()
    workers = workers_of(api)
    async with load_on(api.url) as load:
        await load.flows(200)
        assert await api.stop() == 0
        report = await load.stop()
    assert await all_gone(workers)
    assert (report.broken, report.silent, set(report.statuses)) == (0, 0, {200})
    reader = Reader(Address.of(other.url))
    async with asyncio.timeout(SOON_S):
        while (await reader.totals()).count < load.ledger.confirmed_rates or (await reader.opened()).opened:
            await asyncio.sleep(0.05)
    assert (await reader.totals()).count == load.ledger.confirmed_rates


async def test_they_end_after_a_killed_parent(start: Start) -> None:
    stacked = await start()
    env = {**psutil.Process(stacked.pid).environ(), "PORT": str(free_port())}
    parent = await asyncio.create_subprocess_exec(*child("api"), env=env)
    assert await until(lambda: len(psutil.Process(parent.pid).children()) == WORKERS, SOON_S)
    workers = psutil.Process(parent.pid).children()
    parent.kill()
    await parent.wait()
    assert await all_gone(workers)


AWAY = {"BROKER_URL": "nats://127.0.0.1:9", "STORE_URL": "redis://127.0.0.1:9"}
"""Servers that are not there are no reason to end."""


@pytest.mark.parametrize(
    ("module", "processes", "codes"),
    [
        ("store", 1, {0, INTERRUPTED}),  # the parent's last one: it begins, and may be able to drain already
        ("pydantic", 1 + WORKERS, {0}),  # the workers are still importing
        ("store", 1 + WORKERS, {0}),  # the workers begin
    ],
)
async def test_ctrl_c_at_any_moment_of_the_start_is_a_quiet_end(module: str, processes: int, codes: set[int]) -> None:
    """When so many processes have imported `module`. As a terminal sends it: to the whole group, of which only the
    parent hears it."""
    env = {**os.environ, **AWAY, "WORKERS": str(WORKERS), "PORT": "0", "DRAIN_S": "30", "PYTHONPROFILEIMPORTTIME": "1"}
    parent = await asyncio.create_subprocess_exec(
        *child("fanrate"), "api", env=env, start_new_session=True, stderr=asyncio.subprocess.PIPE
    )
    assert parent.stderr is not None
    async with asyncio.timeout(30):
        for _ in range(processes):
            while (line := await parent.stderr.readline()).split()[-1:] != [module.encode()]:
                assert line, f"fewer than {processes} import {module}"
    os.killpg(parent.pid, signal.SIGINT)
    _, told = await asyncio.wait_for(parent.communicate(), 60)
    assert parent.returncode in codes, told.decode()
    assert b"Traceback" not in told, told.decode()


async def test_a_worker_that_does_not_end_is_killed_and_told() -> None:
    env = {**os.environ, **AWAY, "WORKERS": str(WORKERS), "PORT": "0", "DRAIN_S": "1"}
    parent = await asyncio.create_subprocess_exec(*child("api"), env=env, stderr=asyncio.subprocess.PIPE)
    assert await until(lambda: len(psutil.Process(parent.pid).children()) == WORKERS, SOON_S)
    workers = psutil.Process(parent.pid).children()
    workers[0].suspend()
    parent.terminate()
    _, told = await asyncio.wait_for(parent.communicate(), 20)
    assert parent.returncode == 1, told.decode()
    assert b"worker_killed" in told
    assert await all_gone(workers)


def test_after_one_replica_several_may_come_to_its_port() -> None:
    """Connections that it closed still linger in the system, as TIME_WAIT."""
    port = free_port()
    with listen(HOST, port, "PORT") as listening, socket.create_connection((HOST, port)) as client:
        accepted, _ = listening.accept()
        accepted.close()
        assert client.recv(1) == b""
    ended = run_api(PORT=str(port), WORKER_HEALTH_PORT=str(port))
    assert "workers_started" in ended.stderr
    assert "5 times soon after its start" in ended.stderr


def run_api(**settings: str) -> subprocess.CompletedProcess[str]:
    """An API that ends by itself."""
    env = {**os.environ, "WORKERS": str(WORKERS), **AWAY, **settings}
    return subprocess.run(child("api"), env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_port_that_others_listen_on_is_named_before_any_worker_starts() -> None:
    with socket.create_server((HOST, 0), reuse_port=True) as taken:
        port = str(taken.getsockname()[1])
        ended = run_api(PORT=port)
    assert ended.returncode == 1
    assert f"fanrate: cannot listen on {HOST}:{port}" in ended.stderr
    assert "worker" not in ended.stderr


def test_workers_that_cannot_start_end_it_all() -> None:
    with socket.create_server((HOST, 0)) as taken:
        ended = run_api(PORT="0", WORKER_HEALTH_PORT=str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "5 times soon after its start" in ended.stderr
    assert "WORKER_HEALTH_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "wrong", [{"WORKERS": "0"}, {"WORKERS": "65"}, {"RATE_MIN": "200"}, {"MAX_BATCH_BYTES": "60000000"}]
)
def test_wrong_settings_are_told_once(wrong: dict[str, str]) -> None:
    ended = run_api(**wrong)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert next(iter(wrong)) in ended.stderr
