"""The alarm, by a timer of the kernel's and by the event loop's own."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from bench.alarm import Alarm
from core.lifecycle import until


@pytest.mark.parametrize("platform", ["linux", "another"])
async def test_it_rings_once_after_each_set(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    rung: list[float] = []

    def ring() -> None:
        rung.append(time.monotonic())
        alarm.set(time.monotonic() + 60)

    alarm = Alarm(ring)
    try:
        alarm.set(time.monotonic() + 0.02)
        at = time.monotonic() + 0.08
        alarm.set(at)
        assert await until(lambda: bool(rung), 10)
        assert rung[0] >= at - 0.002
        alarm.set(time.monotonic() - 1)
        assert await until(lambda: len(rung) == 2, 10)
        await asyncio.sleep(0.05)
        assert len(rung) == 2
        alarm.set(time.monotonic() + 0.01)
    finally:
        alarm.close()
    await asyncio.sleep(0.05)
    assert len(rung) == 2
