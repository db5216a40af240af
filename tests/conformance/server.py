"""A server of the tests' own: run by the stack, on an event loop of its own, so that a test sees no task but the ones
that brokers leave behind."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from stack.member import Member
from stack.parts import Part
from stack.probes import LISTENS
from stack.supervisor import Stack

CALL_S = 60.0

_T = TypeVar("_T")


class StackServer:
    """`brokers.conformance.harness.Server`, of one part of a stack."""

    def __init__(self, make_part: Callable[[Path], Part]) -> None:
        self._folder = TemporaryDirectory(prefix="fanrate-server-", ignore_cleanup_errors=True)
        self.directory = Path(self._folder.name)
        self._part = make_part(self.directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stack", daemon=True)
        self._thread.start()
        self._stack = self._call(Stack(self.directory).__aenter__())
        self._member: Member | None = None

    @property
    def url(self) -> str:
        return self._part.url

    def start(self) -> None:
        if self._member is None:
            self._member = self._call(self._stack.start(self._part, supervised=False))
        else:
            self._call(self._member.start())

    def kill(self) -> None:
        if self._member is not None:
            self._call(self._member.kill())

    def freeze(self) -> None:
        """Return when every thread has stopped: the signal alone may take some 20 ms."""
        self._running.freeze()
        deadline = time.monotonic() + CALL_S
        while not all(map(_is_stopped, Path(f"/proc/{self._running.pid}/task").iterdir())):
            assert time.monotonic() < deadline, "it goes on after SIGSTOP"
            time.sleep(0.001)

    def thaw(self) -> None:
        if self._running.running:
            self._running.thaw()

    def lose_data(self) -> None:
        assert not self._running.running
        shutil.rmtree(self.directory / "data")

    def close(self) -> None:
        self.kill()
        self._call(self._stack.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)
        self._loop.close()
        self._folder.cleanup()

    @property
    def _running(self) -> Member:
        assert self._member is not None
        return self._member

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)


def _is_stopped(thread: Path) -> bool:
    state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def configured(part: Part, directory: Path, settings: str) -> Part:
    """`part`, a nats-server, with a configuration file: `settings`, in which %s stands for its data folder."""
    path = directory / "nats.conf"
    text = f"listen: {part.address}\n" + settings.replace("%s", str(directory / "data"))
    return replace(part, probe=LISTENS, argv=[part.argv[0], "-c", str(path)], files={path: text})
