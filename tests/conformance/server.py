"""A nats-server of the tests' own: on a free port, with a data directory that outlives its process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

START_S = 10.0


def program() -> str:
    """The nats-server to run. Without one a test skips, and fails where CI is set."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanrate" / "bin" / "nats-server"
    found = shutil.which("nats-server") or (str(cache) if os.access(cache, os.X_OK) else None)
    if found is None:
        reason = "nats-server is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class NatsServer:
    """May be started again after it was killed; keeps address and data."""

    def __init__(self, directory: Path, settings: str = "jetstream: {store_dir: %s}") -> None:
        self._directory = directory
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._program = program()
        self._settings = settings
        self.url = f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Return when the server answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "nats.conf"
        settings = self._settings.replace("%s", str(self._directory / "data"))
        configuration.write_text(f"listen: 127.0.0.1:{self._port}\n{settings}\n")
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(configuration)], stderr=log)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, f"no answer within {START_S} s"
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def lose_data(self) -> None:
        """To be called while the server is down."""
        assert self._process is None
        shutil.rmtree(self._directory / "data")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                return connection.recv(5) == b"INFO "
        except OSError:
            return False


def _free_port() -> int:
    """Below the range from which the kernel gives ports to outgoing connections: nobody takes it between restarts."""
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port")
