import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from stack import parts
from stack.member import PartFailed, PortTaken
from stack.parts import Part, Tier
from stack.ports import HOST, free_port
from stack.probes import REDIS, Probe, passes
from stack.supervisor import Stack
from tests.servers import needs

NEVER = Probe(expected=b"never")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
async def stack(tmp_path: Path, said: list[str]) -> AsyncIterator[Stack]:
    async with Stack(tmp_path, say=said.append) as stack:
        yield stack


def _shell(stack: Stack, script: str, stop_s: float = 5.0) -> Part:
    log = stack.directory / "logs" / "shell.log"
    return Part("shell", Tier.SERVER, ["/bin/sh", "-c", script], free_port(), "", log, NEVER, stop_s=stop_s)


def _listed(stack: Stack) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads((stack.directory / "parts.json").read_text())
    return listed


async def test_a_killed_redis_comes_back_on_its_address_with_its_data(stack: Stack, said: list[str]):
    needs("redis-server")
    redis = await stack.start(parts.redis(stack.directory))
    async with Redis.from_url(redis.url) as client:
        await client.set("kept", "yes")
    first = redis.pid
    assert _listed(stack) == [{"name": "redis", "pid": first, "address": redis.address, "log": str(redis.log)}]
    await redis.crash()
    assert redis.pid != first
    assert _listed(stack)[0]["pid"] == redis.pid
    assert said == [
        f"redis died (signal 9, SIGKILL), starting it again on {redis.address}",
        f"redis is ready, pid {redis.pid}",
    ]
    async with Redis.from_url(redis.url) as client:
        assert await client.get("kept") == b"yes"
        assert (await client.config_get("appendfsync"))["appendfsync"] == "always"


async def test_a_killed_nats_comes_back_on_its_address(stack: Stack):
    needs("nats-server")
    nats = await stack.start(parts.nats(stack.directory))
    first = nats.pid
    await nats.crash()
    assert nats.pid != first
    assert nats.starts == 2


async def test_a_killed_nginx_takes_its_workers_with_it(stack: Stack):
    needs("nginx")
    nginx = await stack.start(parts.nginx(stack.directory, upstream_ports=[free_port()]))
    workers = psutil.Process(nginx.pid).children()
    assert workers
    await nginx.crash()
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


async def test_down_until_started_again(stack: Stack, said: list[str]):
    needs("redis-server")
    redis = await stack.start(parts.redis(stack.directory))
    assert await redis.kill() == -signal.SIGKILL
    assert not redis.running
    assert _listed(stack) == []
    with pytest.raises(PartFailed, match="redis is down"):
        await redis.wait_ready()
    await redis.start()
    assert await passes(REDIS, redis.port)
    assert await redis.stop() == 0
    assert said == []


async def test_a_frozen_server_answers_nothing_and_can_be_stopped(stack: Stack):
    needs("redis-server")
    redis = await stack.start(parts.redis(stack.directory))
    redis.freeze()
    assert not await passes(REDIS, redis.port)
    redis.thaw()
    assert await passes(REDIS, redis.port)
    redis.freeze()
    assert await redis.stop() == 0


async def test_unsupervised_stays_down(stack: Stack):
    member = await stack.start(_shell(stack, "echo bad luck; exit 7"), wait=False, supervised=False)
    with pytest.raises(PartFailed, match=r"shell died \(exit code 7\).*\n.*bad luck"):
        await member.wait_ready()
    assert member.starts == 1


async def test_five_deaths_in_a_row_end_it(stack: Stack, said: list[str]):
    with pytest.raises(PartFailed, match=r"died 5 times in a row \(exit code 7\)(?s:.*)bad luck"):
        await stack.start(_shell(stack, "echo bad luck; exit 7"))
    assert stack.members[0].starts == 5
    assert len(said) == 4
    assert (await asyncio.wait_for(stack.failed, 1)) is stack.members[0].failure


async def test_a_service_that_refuses_its_settings_is_not_started_again(stack: Stack, said: list[str]):
    settings = {"RATE_MIN": "7", "RATE_MAX": "6"}
    part = parts.api(stack.directory, broker_url="nats://127.0.0.1:1", store_url="redis://127.0.0.1:1", env=settings)
    with pytest.raises(PartFailed, match=r"api-1 died \(exit code 2\)(?s:.*)RATE_MIN 7 is above RATE_MAX 6"):
        await stack.start(part)
    assert stack.members[0].starts == 1
    assert said == []


async def test_deaths_after_readiness_are_not_in_a_row(stack: Stack):
    needs("redis-server")
    redis = await stack.start(parts.redis(stack.directory))
    for _ in range(6):
        await redis.crash()
    assert redis.starts == 7


async def test_what_does_not_heed_its_stop_signal_is_killed(stack: Stack, said: list[str]):
    script = "trap '' TERM; echo ignoring; while :; do sleep 0.05; done"
    member = await stack.start(_shell(stack, script, stop_s=0.3), wait=False)
    async with asyncio.timeout(5):
        while "ignoring" not in member.log_tail():
            await asyncio.sleep(0.01)
    assert await member.stop() == -signal.SIGKILL
    assert said == ["shell did not stop within 0.3 s: killed"]


async def test_not_ready_in_time(stack: Stack):
    with pytest.raises(PartFailed, match=r"shell is not ready after 0.2 s"):
        await stack.start(_shell(stack, "sleep 60"), timeout_s=0.2)


async def test_a_taken_address(stack: Stack):
    part = _shell(stack, "sleep 60")
    with socket.create_server((HOST, part.port)), pytest.raises(PortTaken, match=f"port {part.port} is taken"):
        await stack.start(part)


async def test_parts_end_from_the_outside_in(tmp_path: Path):
    said: list[str] = []
    async with Stack(tmp_path, say=said.append) as stack:
        for tier in Tier:
            log = tmp_path / f"{tier.name}.log"
            part = Part(tier.name, tier, ["sleep", "60"], free_port(), "", log, NEVER)
            await stack.start(part, wait=False)
        pids = [member.pid for member in stack.members]
    assert said == ["stopping BALANCER", "stopping API", "stopping PROCESS", "stopping SERVER"]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (tmp_path / "parts.json").exists()
