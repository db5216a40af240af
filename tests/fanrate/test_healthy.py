"""`fanrate healthy` tells yes from no, and why not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

import pytest

from api.service import ApiService
from brokers.nats import NatsBroker
from core.endpoints import Endpoint
from core.settings import EmbeddedSettings
from stack.embedded import EmbeddedService
from stack.ports import HOST, free_port
from store.memory import MemoryStore
from tests.fanrate.conftest import ROOT

NOT_LOADED = {"aiohttp", "asyncio", "msgspec", "pydantic", "structlog", "uvloop", "importlib.metadata"}


async def healthy(port: int | str, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error."""
    command = [sys.executable, "-m", "fanrate", "healthy", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env={"PORT": str(port)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, out.decode(), err.decode()


async def test_a_service_that_is_well() -> None:
    service = EmbeddedService(EmbeddedSettings(port=0))
    await service.start()
    try:
        port = int(service.url.rpartition(":")[2])
        assert await healthy(port) == (0, "healthy\n", "")
        assert await healthy(1, "--ready", "--port", str(port)) == (0, "ready\n", "")
    finally:
        await service.close()


async def test_a_service_without_its_broker_is_healthy_and_not_ready() -> None:
    broker, store = (
        NatsBroker(Endpoint.of(f"nats://{HOST}:{free_port()}"), name="healthy"),
        MemoryStore(horizon_s=9, idempotency_s=9),
    )
    service = ApiService(broker, store, EmbeddedSettings(port=0), topic="rates")
    await service.start()
    try:
        port = int(service.url.rpartition(":")[2])
        assert await healthy(port) == (0, "healthy\n", "")
        code, out, error = await healthy(port, "--ready")
        assert (code, out) == (1, "")
        assert error.startswith("fanrate: publishing: no connection")
    finally:
        await service.close()
        await broker.close()
        await store.close()


async def test_nobody_there() -> None:
    port = free_port()
    code, _, said = await healthy(port)
    assert code == 1
    assert said == f"fanrate: no answer from http://{HOST}:{port}/healthz: [Errno 111] Connection refused\n"


async def test_one_that_is_silent() -> None:
    with socket.create_server((HOST, 0)) as silent:
        began = time.monotonic()
        code, _, said = await healthy(silent.getsockname()[1])
        assert 2 <= time.monotonic() - began < 10
    assert (code, said.endswith(": timed out\n")) == (1, True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", "answered 404, and not with a problem document"),
        (b"HTTP/1.1 503 Away\r\ncontent-length: 4\r\n\r\nnull", "answered 503, and not with a problem document"),
        (b"220 mail.example ESMTP\r\n", "no answer from http://"),
    ],
)
async def test_one_that_is_not_fanrate(answer: bytes, said: str) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, HOST, 0) as server:
        code, _, told = await healthy(server.sockets[0].getsockname()[1])
    assert code == 1
    assert told.startswith(f"fanrate: {said}")


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "٣"])
async def test_a_port_that_is_none(port: str) -> None:
    code, _, said = await healthy(port)
    assert code == 2
    assert f"a number from 1 to 65535, not {port!r}" in said


def test_it_loads_nothing_that_it_could_do_without() -> None:
    code = "import sys, fanrate.__main__, fanrate.commands, fanrate.healthy; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert not NOT_LOADED & set(done.stdout.split())
