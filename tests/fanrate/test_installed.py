"""The wheel at work by its program alone, as pipx or uv install it, in a folder whose files have the names of rooms."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.version import __version__
from fanrate.commands import COMMANDS
from stack.ports import HOST, free_port
from tests.fanrate.conftest import Installed
from tests.servers import needs


@contextmanager
def running(installed: Installed, ready: str, *arguments: str, **env: str) -> Iterator[str]:
    """`fanrate` in the foreground until the block ends, from the line that matches `ready` on; what it said until
    then. The test's own timeout bounds it."""
    process = subprocess.Popen(
        [installed.program, *arguments],
        cwd=installed.folder,
        env={**installed.env, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if re.search(ready, line):
                break
        else:
            raise AssertionError(f"{ready!r} is not in:\n{said}")
        yield said
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def replay(installed: Installed, port: int) -> None:
    done = installed.call("replay", "--url", f"http://{HOST}:{port}", "--times", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOSS 0 DUP 0"


def test_run(installed: Installed) -> None:
    port = free_port()
    with running(installed, r"^Ctrl-C stops it", "run", PORT=str(port)) as said:
        assert "With NATS and Redis: fanrate up --broker nats\n" in said
        assert installed.call("healthy", PORT=str(port)).stdout == "healthy\n"
        assert installed.call("healthy", "--ready", "--port", str(port)).stdout == "ready\n"
        replay(installed, port)
    assert installed.call("healthy", PORT=str(port)).returncode == 1


def test_up(installed: Installed, tmp_path: Path) -> None:
    needs("redis-server", "nats-server", "nginx")
    port = free_port()
    directory = str(tmp_path / "stack")
    options = ["--broker", "nats", "--balancer", "nginx-tuned", "--port", str(port), "--directory", directory]
    with running(installed, r"^ready ", "up", *options) as said:
        settings = dict(re.findall(r"(BROKER_URL|STORE_URL)=(\S+)", said))
        request = urllib.request.Request(f"http://{HOST}:{port}/rate?rate=5", method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own address
            assert response.status == 200
        replay(installed, port)
        letters = installed.call("dead", **settings)
        assert (letters.returncode, letters.stderr) == (0, "0 dead letters\n")
        again = installed.call("redrive", **settings)
        assert again.stdout.startswith("0 sent again"), again.stderr
        taken = installed.call("up", "--port", str(port), "--directory", str(tmp_path / "other"))
        assert "choose another with --port, or end" in taken.stderr


def test_what_is_missing_is_installed_by_a_command_that_is_there(installed: Installed, tmp_path: Path) -> None:
    done = installed.call("up", "--broker", "rabbit", PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 3
    assert re.search(r"is not installed; to install it: fanrate services --broker rabbit\n$", done.stderr)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_tells_how_it_is_called(installed: Installed, name: str) -> None:
    done = installed.call(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: fanrate {name} ")


@pytest.mark.parametrize("arguments", [["--version"], *([name, "--version"] for name in COMMANDS)])
def test_the_version(installed: Installed, arguments: list[str]) -> None:
    assert installed.call(*arguments).stdout == f"fanrate {__version__}\n"


def test_replay_without_its_extra(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tqdm'] = None\n")
    done = installed.call("replay", PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr == "fanrate: replay needs tqdm, which is not installed: install fanrate[bench]\n"
