"""Running and ending a service."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from core.lifecycle import Pauses, ServiceFailed, Tasks, serve, until


class Recorder:
    """A service that writes down what it is told."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.told: list[str] = []

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self.tasks.failed

    async def start(self) -> None:
        self.told.append("start")

    async def drain(self, timeout_s: float) -> None:
        self.told.append(f"drain {timeout_s:g}")

    async def close(self) -> None:
        self.told.append("close")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_closes(number: signal.Signals) -> None:
    service = Recorder()
    await serve(service, drain_s=3, started=lambda: os.kill(os.getpid(), number))
    assert service.told == ["start", "drain 3", "close"]


async def test_a_service_that_fails_is_drained_closed_and_told() -> None:
    service = Recorder()

    async def mistaken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ServiceFailed, match="ZeroDivisionError"):
        await serve(service, drain_s=3, started=lambda: service.tasks.spawn("mistaken", mistaken()) and None)
    assert service.told == ["start", "drain 3", "close"]


async def test_a_service_that_does_not_start_is_closed() -> None:
    class Failing(Recorder):
        async def start(self) -> None:
            raise OSError("no")

    service = Failing()
    with pytest.raises(OSError, match="no"):
        await serve(service, drain_s=3, started=lambda: None)
    assert service.told == ["close"]


async def test_tasks_are_waited_for_and_cancelled() -> None:
    tasks = Tasks()
    tasks.spawn("short", asyncio.sleep(0.01))
    assert await tasks.wait(1)
    tasks.spawn("long", asyncio.sleep(60))
    assert not await tasks.wait(0.01)
    await tasks.cancel()
    assert len(tasks) == 0
    assert not tasks.failed.done()


async def test_until() -> None:
    assert await until(lambda: True, 0)
    assert not await until(lambda: False, 0.02)


async def test_pauses_grow_to_their_most(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    pauses = Pauses(1, 5)
    for _ in range(4):
        await pauses.pause()
    pauses.reset()
    await pauses.pause()
    assert slept == [1, 2, 4, 5, 1]
