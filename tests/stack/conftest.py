"""`python -m stack up`, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stack.kafka import kafka_jars
from stack.ports import free_port
from stack.programs import MissingProgram
from stack.topology import Broker, Topology
from tests.servers import needs

STACK = [sys.executable, "-m", "stack"]


def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One run of `python -m stack` that ends by itself."""
    environment = {**os.environ, **env}
    return subprocess.run(
        [*STACK, *arguments], capture_output=True, text=True, timeout=30, check=False, env=environment
    )


def needs_broker(broker: Broker) -> None:
    """As `needs`, for all that a topology on `broker` runs."""
    needs(*Topology(broker=broker).programs)
    if broker == "kafka":
        try:
            kafka_jars()
        except MissingProgram as exc:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(exc))


def processes_of(directory: Path) -> list[psutil.Process]:
    """All that have to do with `directory`, in whatever group or session they are."""
    return [process for process in psutil.process_iter() if _is_of(process, str(directory))]


def _is_of(process: psutil.Process, directory: str) -> bool:
    try:
        words = [*process.cmdline(), *process.environ().values()]
        return process.status() != psutil.STATUS_ZOMBIE and any(directory in word for word in words)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def nothing_is_left_of(directory: Path, within_s: float = 10.0) -> None:
    """Wait until that is so."""
    deadline = time.monotonic() + within_s
    while left := processes_of(directory):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


class Up:
    """`python -m stack up` in a directory of its own."""

    def __init__(self, directory: Path, *arguments: str, **env: str) -> None:
        self.port = free_port()
        self.directory = directory
        command = [*STACK, "up", "--port", str(self.port), "--directory", str(directory), *arguments]
        environment = {**os.environ, **env}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

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

    def start(*arguments: str, **env: str) -> Up:
        started.append(Up(tmp_path, *arguments, **env))
        return started[-1]

    yield start
    for each in started:
        each.end()
