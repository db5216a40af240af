"""A member of a stack: one part, started, watched, restarted on its address when it dies, and stopped.

    DOWN --start--> STARTING --probe passes--> READY --dies--> STARTING ...   --stop, kill--> DOWN

It stays down after `stop`, `kill`, five deaths in a row without having become ready, a death with one of its part's
`final_codes`, or, unsupervised, its first death.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.commands import remedy
from core.errors import FanrateError
from core.lifecycle import Pauses, Tasks
from stack import groups
from stack.guardian import Guardian
from stack.parts import Part
from stack.ports import is_free
from stack.probes import passes

MOST_DEATHS: Final = 5
READY_S: Final = 45.0
"""A JVM on a busy machine takes a third of it."""
PORT_S: Final = 2.0
KILLED_S: Final = 5.0
TAIL_LINES: Final = 20

_LOOK_S: Final = 0.02


class PartFailed(FanrateError):
    """A part does not come up, or is down; the message ends with the tail of its log."""


class PortTaken(FanrateError):
    """Something else listens on a part's address."""

    def __init__(self, port: int) -> None:
        setting = remedy("PORT=", "--port")
        super().__init__(
            f"port {port} is taken: choose another with {setting}, or end what `ss -ltnp sport = :{port}` shows"
        )
        self.port = port


class Member:
    """One part of a running stack; `Stack.start` makes them."""

    def __init__(
        self, part: Part, guardian: Guardian, tasks: Tasks, said: Callable[[str], None], changed: Callable[[], None]
    ) -> None:
        self.part = part
        self.supervised = True
        """Whether a death is followed by a restart; may be changed at any time."""
        self.starts = 0
        self.failure: PartFailed | None = None
        self._guardian = guardian
        self._tasks = tasks
        self._say = said
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._exit_code: int | None = None
        self._died = False
        """Whether it died and has not been ready since."""
        self._ready = asyncio.Event()
        self._down = asyncio.Event()
        self._down.set()

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def address(self) -> str:
        return self.part.address

    @property
    def url(self) -> str:
        return self.part.url

    @property
    def port(self) -> int:
        return self.part.port

    @property
    def log(self) -> Path:
        return self.part.log

    @property
    def running(self) -> bool:
        """Whether there is a process, ready or not."""
        return self._process is not None

    @property
    def ready(self) -> bool:
        """Whether the probe has passed since the last start."""
        return self._ready.is_set()

    @property
    def pid(self) -> int:
        """The real server's process id, which is its process group's too; raises PartFailed while it is down."""
        if self._process is None:
            raise PartFailed(f"{self.name} is down")
        return self._process.pid

    async def start(self, *, wait: bool = True, timeout_s: float = READY_S) -> None:
        """Start it unless it runs and, with `wait`, wait until it is ready; raises PortTaken or PartFailed."""
        if self._watching is None or self._watching.done():
            self._down.clear()
            self.failure = None
            await self._spawn()
            self._watching = self._tasks.spawn(f"watch {self.name}", self._watch())
        if wait:
            await self.wait_ready(timeout_s)

    async def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Raises PartFailed when it is not ready after `timeout_s`, or is down for good."""
        await self._wait(self._ready.is_set, "not ready", timeout_s)

    async def stop(self) -> int | None:
        """Stop it gracefully: its stop signal, then SIGKILL after its time. The exit code, negative for a signal."""
        return await self._end(self.part.stop_signal, self.part.stop_s)

    async def kill(self) -> int | None:
        """SIGKILL the whole group; it stays down until `start`."""
        return await self._end(signal.SIGKILL, KILLED_S)

    async def crash(self, number: signal.Signals = signal.SIGKILL, timeout_s: float = READY_S) -> None:
        """Send a signal to the real server alone, as an accident would; return when supervision has it ready again."""
        starts = self.starts
        os.kill(self.pid, number)
        await self._wait(lambda: self.starts > starts and self.ready, "not back", timeout_s)

    def freeze(self) -> None:
        """SIGSTOP the whole group: it keeps its connections and answers nothing."""
        groups.send(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen group go on."""
        groups.send(self.pid, signal.SIGCONT)

    def give_up(self) -> None:
        """SIGKILL the whole group without waiting for anything; it stays down."""
        self._down.set()
        if self._process is not None:
            groups.send(self._process.pid, signal.SIGKILL)

    def log_tail(self) -> str:
        """The last TAIL_LINES of its log."""
        if not self.log.exists():
            return ""
        with self.log.open(errors="replace") as lines:
            return "".join(deque(lines, TAIL_LINES)).rstrip()

    async def _wait(self, condition: Callable[[], bool], trouble: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    if self._watching is None or self._watching.done():
                        raise self.failure or self._failed("is down")
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise self._failed(f"is {trouble} after {timeout_s:g} s") from None

    async def _end(self, number: signal.Signals, timeout_s: float) -> int | None:
        self._down.set()
        if self._watching is None or self._watching.done():
            return self._exit_code
        if self._process is not None:
            if number != signal.SIGKILL:
                self.thaw()
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
        if not await self._ended(timeout_s):
            self._say(f"{self.name} did not stop within {timeout_s:g} s: killed")
            self.give_up()
            await self._ended(KILLED_S)
        return self._exit_code

    async def _ended(self, timeout_s: float) -> bool:
        assert self._watching is not None
        ended, _ = await asyncio.wait({self._watching}, timeout=timeout_s)
        return bool(ended)

    async def _watch(self) -> None:
        deaths = 0
        pauses = Pauses()
        while True:
            if await self._follow():
                deaths = 0
                pauses.reset()
            if self._down.is_set():
                return
            deaths += 1
            cause = _cause(self._exit_code)
            if not self.supervised or deaths == MOST_DEATHS or self._exit_code in self.part.final_codes:
                times = f" {deaths} times in a row" if deaths > 1 else ""
                self._fail(self._failed(f"died{times} ({cause})"))
                return
            self._died = True
            self._say(f"{self.name} died ({cause}), starting it again on {self.address}")
            if deaths > 1:
                await pauses.pause()
            try:
                await self._spawn()
            except PortTaken as exc:
                self._fail(self._failed(f"died ({cause}) and cannot come back: {exc}"))
                return

    async def _follow(self) -> bool:
        """Wait for the process to end, and end its group; whether it was ready in between."""
        process = self._process
        if process is None:
            return False
        exited = asyncio.create_task(groups.exit_of(process), name=f"exit of {self.name}")
        try:
            while not exited.done():
                if await passes(self.part.probe, self.part.probe_port or self.port) and not exited.done():
                    self._ready.set()
                    if self._died:
                        self._died = False
                        self._say(f"{self.name} is ready, pid {process.pid}")
                    break
                await asyncio.wait({exited}, timeout=_LOOK_S)
            self._exit_code = await exited
        finally:
            exited.cancel()
        was_ready = self.ready
        self._ready.clear()
        self._process = None
        await groups.end(process.pid)
        self._guardian.forget(process.pid)
        self._changed()
        return was_ready

    async def _spawn(self) -> None:
        await self._wait_for_port()
        if self._down.is_set():
            return
        self._process = self._launch()
        self.starts += 1
        self._changed()

    def _launch(self) -> subprocess.Popen[bytes]:
        for folder in (*self.part.folders, self.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in self.part.files.items():
            path.write_text(text)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._guardian.reporting(self.part.argv),
                env={**os.environ, **self.part.env},
                stdin=self._guardian.pipe,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _wait_for_port(self) -> None:
        try:
            async with asyncio.timeout(PORT_S):
                while not is_free(self.port):
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise PortTaken(self.port) from None

    def _failed(self, what: str) -> PartFailed:
        tail = self.log_tail()
        return PartFailed(f"{self.name} {what}" + (f"; the end of {self.log}:\n{tail}" if tail else ""))

    def _fail(self, failure: PartFailed) -> None:
        self.failure = failure
        self._down.set()
        self._changed()


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    return f"signal {-exit_code}, {signal.Signals(-exit_code).name}"
