"""One vocabulary for everything that runs: start, drain, close.

    NEW --start--> RUNNING --drain(timeout_s)--> DRAINING --close--> CLOSED

`start` returns once the service does its work, or has begun to try: a dependency that is away never fails it. `drain`
stops taking work in and finishes what was taken in; it returns at the latest after `timeout_s`. `close` releases
everything, at once, from any state. Each of them is idempotent.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from core.errors import FanrateError

log = structlog.get_logger()


class ServiceFailed(FanrateError):
    """A service came upon a mistake in itself and cannot go on."""


class Failing(Protocol):
    """`failed` is done when it cannot go on, which only a mistake in it causes."""

    @property
    def failed(self) -> asyncio.Future[BaseException]: ...


class Service(Failing, Protocol):
    """Something with a lifecycle."""

    async def start(self) -> None: ...

    async def drain(self, timeout_s: float) -> None: ...

    async def close(self) -> None: ...


class Tasks:
    """The named tasks of one service. A task that dies of an error is logged at once, and `failed` holds the first."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def __len__(self) -> int:
        return len(self._running)

    async def wait(self, timeout_s: float) -> bool:
        """Wait until all have ended; False if some had not after `timeout_s`."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        return not self._running

    async def cancel(self) -> None:
        """Cancel what still runs and wait for it."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def fail(self, error: BaseException) -> None:
        """The service cannot go on, though no task died of it."""
        if not self.failed.done():
            self.failed.set_result(error)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("task_failed", task=task.get_name(), exc_info=error)
        self.fail(error)


def first_failure(*services: Failing) -> asyncio.Future[BaseException]:
    """Done when the first of several services has failed: the `failed` of a service that is made of them."""
    first: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def note(failed: asyncio.Future[BaseException]) -> None:
        if not failed.cancelled() and not first.done():
            first.set_result(failed.result())

    for service in services:
        service.failed.add_done_callback(note)
    return first


def on_signals(stop: asyncio.Event) -> None:
    """Set `stop` at SIGTERM or SIGINT; a second one is left to the system's default, which ends the process."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first, number)


async def serve(
    service: Service, *, drain_s: float, started: Callable[[], None], stop: asyncio.Event | None = None
) -> None:
    """Run `service` until a signal, or until `stop` is set, then drain it for at most `drain_s` and close it; `started`
    tells of its start.

    Raises ServiceFailed when the service fails: a supervisor should start it again.
    """
    stop = stop or asyncio.Event()
    on_signals(stop)
    stopping: asyncio.Future[Any] = asyncio.create_task(stop.wait(), name="await_signal")
    try:
        await service.start()
        started()
        await asyncio.wait([stopping, service.failed], return_when=asyncio.FIRST_COMPLETED)
        await service.drain(drain_s)
        if service.failed.done():
            raise ServiceFailed(repr(service.failed.result()))
    finally:
        stopping.cancel()
        await service.close()


async def until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.01) -> bool:
    """Wait until `condition` holds; False if it did not within `timeout_s`. For what nothing notifies of."""
    deadline = Deadline(timeout_s)
    while not condition():
        if not deadline.left_s:
            return False
        await asyncio.sleep(every_s)
    return True


class Deadline:
    """A time budget shared by several steps, in seconds on the event loop's monotonic clock."""

    def __init__(self, timeout_s: float) -> None:
        self._at = asyncio.get_running_loop().time() + timeout_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._at - asyncio.get_running_loop().time())


class Pauses:
    """Growing pauses between tries of one thing: doubled each time up to a most, back to the first after a success."""

    def __init__(self, first_s: float = 0.05, most_s: float = 1.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def reset(self) -> None:
        self._next_s = self._first_s

    async def pause(self) -> None:
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._most_s)
        await asyncio.sleep(pause_s)
