import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stack.ports import HOST, free_port, is_free
from tests.servers import needs
from tests.stack.conftest import Up, call


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
    needs("redis-server", "nats-server", "nginx")
    first = up("--balancer", "nginx-tuned")
    assert first.until(r"^ready (.*)$")[1] == f"http://{HOST}:{first.port}"
    parts = first.parts()
    assert list(parts) == ["redis", "nats", "process-1", "api-1", "nginx"]
    assert psutil.Process(parts["redis"]["pid"]).name() == "redis-server"

    request = urllib.request.Request(f"http://{HOST}:{first.port}/rate?rate=5", method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own address
        assert response.status == 200

    second = call("up", "--directory", str(tmp_path), "--port", str(free_port()))
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
    needs("redis-server", "nats-server", "nginx")
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
        tried = call("up", "--directory", str(tmp_path), "--port", str(port))
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
        ["--dispatch", "pigeon"],
        ["--durability", "some"],
        ["--dispatch", "topics", "--processes", "4"],
    ],
)
def test_wrong_usage(arguments: list[str]):
    tried = call("up", *arguments)
    assert tried.returncode == 2
    assert "Traceback" not in tried.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "told"),
    [
        (["--broker", "nats+core"], {}, r"nats\+core:// .* DURABILITY=relaxed"),
        (["--dispatch", "topics", "--processes", "3"], {"TOPICS": "2"}, "PROCESSES=3 and TOPICS=2: 1 of the processes"),
        ([], {"DISPATCH": "pigeon"}, "DISPATCH: "),
        ([], {"RATE_MIN": "7", "RATE_MAX": "6"}, "RATE_MIN 7 is above RATE_MAX 6"),
        ([], {"READ_TOPICS": "1"}, "only with DISPATCH=topics"),
    ],
)
def test_what_the_services_would_refuse_is_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], env: dict[str, str], told: str
):
    needs("redis-server", "nats-server")
    tried = call("up", "--directory", str(tmp_path), *arguments, **env)
    assert tried.returncode == 2
    assert re.search(rf"^fanrate: .*{told}", tried.stderr)
    assert not (tmp_path / "logs").exists()
    assert tried.stdout == ""


def test_a_directory_that_cannot_be_written():
    needs("redis-server", "nats-server")
    tried = call("up", "--directory", "/dev/null/stack")
    assert (tried.returncode, tried.stderr) == (2, "fanrate: --directory /dev/null/stack: Not a directory\n")


@pytest.mark.parametrize("broker", ["nats", "kafka", "rabbit", "redis"])
def test_a_missing_program(tmp_path: Path, broker: str):
    tried = call("up", "--broker", broker, "--directory", str(tmp_path), PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert tried.returncode == 3
    remedy = f"make services BROKER={broker}"
    assert re.fullmatch(rf"fanrate: .* is not installed; to install it: {remedy}\n", tried.stderr)
