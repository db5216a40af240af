import re
from pathlib import Path
from typing import get_args

import pytest

from stack import services
from stack.kafka import KAFKA_VERSION
from stack.topology import Broker
from tests.servers import needs
from tests.stack.conftest import call, needs_broker


def test_says_that_all_are_there():
    needs("redis-server", "nats-server", "nginx")
    tried = call("services")
    assert tried.returncode == 0
    assert re.fullmatch(r"all there:\n(  (redis-server|nats-server|nginx) \d+\.\d+\.\d+  \(/.*\)\n){3}", tried.stdout)


def test_all_is_what_each_broker_needs():
    needs("nginx")
    for broker in get_args(Broker):
        needs_broker(broker)
    tried = call("services", "--broker", "all")
    assert tried.returncode == 0, tried.stdout
    names = ["redis-server", "nats-server", "java", "rabbitmq-server", "nginx", "kafka"]
    assert re.findall(r"^  (\S+) \d+\.\d+\.\d+  \(/", tried.stdout, re.MULTILINE) == names
    assert f"kafka {KAFKA_VERSION}" in tried.stdout


def test_says_what_to_do_where_it_cannot_install(tmp_path: Path):
    tried = call("services", PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert tried.returncode == 3
    assert "sudo apt-get install" in tried.stdout
    assert "redis-server" in tried.stdout


def test_says_what_to_do_for_kafka(tmp_path: Path):
    tried = call("services", "--broker", "kafka", PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert tried.returncode == 3
    assert re.search(
        r"apt-get install --no-install-recommends .*default-jre-headless.* maven$", tried.stdout, re.MULTILINE
    )
    assert "disable --now redis-server " in tried.stdout


def _maven(folder: Path, script: str) -> None:
    """A program of that name, which makes jars out of nothing."""
    program = folder / "mvn"
    program.write_text(
        f"#!/bin/sh\nfor word; do case $word in -DoutputDirectory=*) out=${{word#*=}};; esac; done\n{script}\n"
    )
    program.chmod(0o755)


def test_kafkas_jars_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    folder = tmp_path / "cache" / "kafka"
    _maven(tmp_path, "mkdir $out; echo half > $out/half.jar; exit 1")
    assert not services.install_jars(folder)
    assert list(folder.parent.iterdir()) == []
    _maven(tmp_path, "mkdir $out; echo whole > $out/whole.jar")
    assert services.install_jars(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["kafka"]
    assert (folder / "whole.jar").read_text() == "whole\n"
