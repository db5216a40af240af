"""Several API processes on one port, for a machine without a balancer: WORKERS=n.

Each worker is a replica of its own, with a listening socket of its own on the same address (SO_REUSEPORT); the kernel
spreads new connections over them. The parent takes no request: it starts a worker that ended again, and ends all
together. A worker's standard input is its leash: it drains when that ends, as it does when the parent was killed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from typing import Final

import structlog

from core.commands import child
from core.errors import FanrateError
from core.http import bind
from core.lifecycle import Deadline, Pauses, Tasks
from core.program import WRONG_USAGE
from core.settings import SPACING

log = structlog.get_logger()

OPTION: Final = "--worker"
"""Of `python -m api`, with the number of a worker."""
SETTLED_S: Final = 10.0
"""A worker that lived so long had started well."""
MOST_DEATHS: Final = 5
"""In a row, of one worker that had not; then all end."""
_KILL_AFTER_S: Final = 2.0
"""Beyond the time for a drain, which the workers keep by themselves."""


class WorkersFailed(FanrateError):
    """A worker ends again and again, or did not end well."""


class Workers:
    """The parent: a lifecycle service over `number` processes that listen on one address."""

    def __init__(self, number: int, host: str, port: int) -> None:
        self._number = number
        self._host = host
        self._port = port
        self._tasks = Tasks()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._reserved: socket.socket | None = None
        self._stopping = False

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._tasks.failed

    async def start(self) -> None:
        """Raises ListenError before any worker starts: also where others would share the address. It stays reserved by
        a socket that never listens, and is shared only once that has it."""
        self._reserved = bind(self._host, self._port, "PORT")
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port = self._reserved.getsockname()[1]
        for worker in range(self._number):
            self._tasks.spawn(f"worker-{worker}", self._keep(worker))

    async def drain(self, timeout_s: float) -> None:
        """All at once; each is a replica and drains by itself."""
        self._stopping = True
        for process in self._running.values():
            _let_go(process)
        if not await self._tasks.wait(timeout_s + _KILL_AFTER_S):
            self._tasks.fail(WorkersFailed("a worker did not end in the time for a drain"))

    async def close(self) -> None:
        self._stopping = True
        for worker, process in self._running.items():
            log.warning("worker_killed", worker=worker, pid=process.pid)
            with suppress(ProcessLookupError, RuntimeError):  # it has ended just now; uvloop raises the latter
                process.kill()
        await self._tasks.wait(_KILL_AFTER_S)
        await self._tasks.cancel()
        if self._reserved is not None:
            self._reserved.close()

    async def _keep(self, worker: int) -> None:
        """One worker, started again whenever it ends."""
        pauses = Pauses()
        deaths = 0
        while not self._stopping:
            settled = Deadline(SETTLED_S)
            code = await self._run(worker)
            if code or not self._stopping:
                log.error("worker_ended", worker=worker, code=code)
            if self._stopping:
                if code:
                    self._tasks.fail(WorkersFailed(f"worker {worker} ended with {code} while it drained"))
                return
            if not settled.left_s:
                deaths = 0
                pauses.reset()
            deaths += 1
            if code == WRONG_USAGE or deaths == MOST_DEATHS:
                often = f", {deaths} times soon after its start" if deaths > 1 else ""
                self._tasks.fail(WorkersFailed(f"worker {worker} ended with {code}{often}"))
                return
            await pauses.pause()

    async def _run(self, worker: int) -> int:
        """The exit code of one worker's process."""
        command = [*child("fanrate"), "api", OPTION, str(worker)]
        spacing = {name: value for name, value in SPACING.items() if not os.environ.get(name)}
        environment = {**os.environ, **spacing, "PORT": str(self._port)}
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal reaches the parent alone, which lets go of all
        )
        self._running[worker] = process
        if self._stopping:
            _let_go(process)
        try:
            return await process.wait()
        finally:
            del self._running[worker]


def _let_go(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()


async def leash(stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends: the parent has let go of this worker, or is gone."""
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: _Leash(stop), sys.stdin.buffer)


class _Leash(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop.set()
