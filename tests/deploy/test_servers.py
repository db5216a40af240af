"""The servers take the files that the compose files give them, and are then what the services need."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from core.durability import Durability
from core.endpoints import Endpoint
from core.settings import Keeping
from stack import parts
from stack.kafka import kafka
from stack.parts import Part
from stack.ports import HOST
from stack.programs import find
from stack.rabbit import rabbit
from stack.supervisor import Stack
from store import open_store
from tests.deploy.files import ROOT
from tests.servers import needs

DEPLOY = ROOT / "deploy"
DURABILITIES: tuple[Durability, ...] = get_args(Durability)
OF_NODES = {"default.replication.factor", "min.insync.replicas"}
"""What a server of `make up` is told because there may be several."""


def asked_by(durability: Durability) -> dict[str, str]:
    text = (DEPLOY / "durability" / f"{durability}.env").read_text(encoding="utf-8")
    return dict(line.split("=") for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_redis_keeps_what_it_counts(durability: Durability, tmp_path: Path) -> None:
    needs("redis-server")
    part = parts.redis(tmp_path)
    own = ["--bind", HOST, "--port", str(part.port), "--dir", str(part.folders[0])]
    fsync = ["--appendfsync", asked_by(durability)["REDIS_APPENDFSYNC"]]
    async with Stack(tmp_path) as stack:
        server = await stack.start(replace(part, argv=[part.argv[0], str(DEPLOY / "redis.conf"), *fsync, *own]))
        store = open_store(Endpoint.of(server.url), Keeping(), durability)
        try:
            await store.check()
        finally:
            await store.close()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_nats_takes_its_file(durability: Durability) -> None:
    needs("nats-server")
    version = subprocess.run([find("nats-server"), "-v"], capture_output=True, text=True, timeout=20, check=True).stdout
    if "v2.9." in version:
        pytest.skip(f"{version.strip()} has no sync_interval")
    command = [find("nats-server"), "-t", "-c", DEPLOY / "nats.conf"]
    env = {**os.environ, **asked_by(durability)}
    tried = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert tried.returncode == 0, tried.stderr


def test_kafka_is_that_of_make_up_at_another_address(tmp_path: Path) -> None:
    needs("java")
    ours = _settings((DEPLOY / "kafka.properties").read_text(encoding="utf-8"))
    local = _settings(_file(kafka(tmp_path), "server.properties"))
    assert local.keys() - ours.keys() == OF_NODES
    assert {name: ours[name] for name in ours if ours[name] != local.get(name)} == {
        "controller.quorum.voters": "1@127.0.0.1:9093",
        "listeners": "CLIENT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": "CLIENT://kafka:9092",
        "inter.broker.listener.name": "CLIENT",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "/var/lib/kafka/data/log",
    }


def test_rabbit_has_the_settings_of_make_up_and_bounds_for_its_container(tmp_path: Path) -> None:
    needs("rabbitmq-server")
    ours = _settings((DEPLOY / "rabbit.conf").read_text(encoding="utf-8"))
    local = _settings(_file(rabbit(tmp_path), "rabbitmq.conf"))
    assert {name for name in local if ours.get(name) != local[name]} == {"listeners.tcp.1", "disk_free_limit.absolute"}
    assert ours["vm_memory_high_watermark.absolute"] == "600MB"


def _file(part: Part, name: str) -> str:
    (found,) = (text for path, text in part.files.items() if path.name == name)
    return found


def _settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
