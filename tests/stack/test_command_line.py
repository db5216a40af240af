import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stack.ports import HOST, free_port, is_free
from tests.servers import needs

STACK = [sys.executable, "-m", "stack"]


def _call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    return subprocess.run(
        [*STACK, *arguments], capture_output=True, text=True, timeout=30, check=False, env=environment
    )


class Up:
    """`python -m stack up` in a directory of its own."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.port = free_port()
        self.directory = directory
        command = [*STACK, "up", "--port", str(self.port), "--directory", str(directory), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def until(self, pattern: str) -> re.Match[str]:
        """Read lines until one matches; the test's own timeout bounds it."""
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"{pattern!r} is not in:\n{''.join(seen)}")

    def parts(self) -> dict[str, dict[str, Any]]:
        return {part["name"]: part for part in json.loads((self.directory / "parts.json").read_text())}

    def end(self) -> None:
        """SIGKILL, if it still runs: its guardian ends the rest."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        needs("redis-server", "nats-server", "nginx")
        started.append(Up(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.end()


def _wait(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_up_watches_and_stops(up: Callable[..., Up], tmp_path: Path):
    first = up("--balancer", "nginx-tuned")
    assert first.until(r"^ready (.*)$")[1] == f"http://{HOST}:{first.port}"
    parts = first.parts()
    assert list(parts) == ["redis", "nats", "process-1", "api-1", "nginx"]
    assert psutil.Process(parts["redis"]["pid"]).name() == "redis-server"

    request = urllib.request.Request(f"http://{HOST}:{first.port}/rate?rate=5", method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own address
        assert response.status == 200

    second = _call("up", "--directory", str(tmp_path), "--port", str(free_port()))
    assert second.returncode == 1
    assert f"pid {first.process.pid}" in second.stderr

    os.kill(parts["redis"]["pid"], signal.SIGKILL)
    first.until(rf"^redis died .*{parts['redis']['address']}$")
    _wait(lambda: first.parts().get("redis", parts["redis"])["pid"] != parts["redis"]["pid"])

    first.process.send_signal(signal.SIGINT)
    first.until(r"^stopped$")
    assert first.process.wait(10) == 0
    assert is_free(first.port)


def test_nothing_outlives_a_killed_up(up: Callable[..., Up]):
    first = up("--balancer", "nginx-plain")
    first.until(r"^ready ")
    children = [psutil.Process(part["pid"]) for part in first.parts().values()]
    children += [worker for child in children for worker in child.children(recursive=True)]
    assert {"redis-server", "nats-server", "nginx"} <= {child.name() for child in children}
    assert len([child for child in children if child.name() == "nginx"]) > 1
    first.process.kill()
    _wait(lambda: not any(_lives(child) for child in children))
    assert is_free(first.port)

    again = up("--replicas", "2")
    addresses = [f"http://{HOST}:{again.port + replica}" for replica in (0, 1)]
    assert again.until(r"^ready (.*)$")[1].split() == addresses
    children = [psutil.Process(part["pid"]) for part in again.parts().values()]
    again.process.send_signal(signal.SIGINT)
    again.until(r"^stopping api-1$")
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(2) == -signal.SIGINT
    _wait(lambda: not any(_lives(child) for child in children))


def test_a_taken_port_is_one_line_with_the_remedy(tmp_path: Path):
    needs("redis-server", "nats-server")
    port = free_port()
    with socket.create_server((HOST, port)):
        tried = _call("up", "--directory", str(tmp_path), "--port", str(port))
    assert tried.returncode == 1
    assert re.fullmatch(rf"fanrate: port {port} is taken: .*PORT=.*\n", tried.stderr)
    assert tried.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--replicas", "0"],
        ["--replicas", "two"],
        ["--replicas", "٣"],
        ["--processes", "-1"],
        ["--processes", "9" * 400],
        ["--port", "65536"],
        ["--port", "65535", "--replicas", "2"],
        ["--broker", "pigeon"],
        ["--balancer", "nginx"],
    ],
)
def test_wrong_usage(arguments: list[str]):
    tried = _call("up", *arguments)
    assert tried.returncode == 2
    assert "Traceback" not in tried.stderr


def test_a_missing_program(tmp_path: Path):
    tried = _call("up", "--directory", str(tmp_path), PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert tried.returncode == 3
    assert re.fullmatch(r"fanrate: .* is not installed; to install it: make services BROKER=nats\n", tried.stderr)


def test_services_says_that_all_are_there():
    needs("redis-server", "nats-server", "nginx")
    tried = _call("services")
    assert tried.returncode == 0
    assert re.fullmatch(r"all there:\n(  (redis-server|nats-server|nginx) \d+\.\d+\.\d+  \(/.*\)\n){3}", tried.stdout)


def test_services_says_what_to_do_where_it_cannot_install(tmp_path: Path):
    tried = _call("services", PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert tried.returncode == 3
    assert "sudo apt-get install" in tried.stdout
    assert "redis-server" in tried.stdout
