"""Profiles of a service under the load that missed its bar: where the time goes, by function.

The service runs once more, under cProfile, which slows it down: shares are to be read, not times.
"""

from __future__ import annotations

import io
import pstats
import shlex
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.runs import OUT
from bench.spine.bars import Measured
from bench.spine.scene import Scene
from stack import parts
from stack.member import Member
from stack.parts import Part

_LINES = 60


@dataclass(frozen=True, slots=True)
class Profile:
    """A service under cProfile; `finish` stops it and writes what it found."""

    member: Member
    path: Path

    async def finish(self) -> Path:
        """The text file with the functions that took most time; the raw profile stands beside it."""
        await self.member.stop()
        text = io.StringIO()
        stats = pstats.Stats(str(self.path), stream=text)
        stats.sort_stats("tottime").print_stats(_LINES)
        stats.sort_stats("cumulative").print_stats(_LINES)
        readable = self.path.with_suffix(".txt")
        readable.write_text(text.getvalue())
        return readable


async def of_api(stage: Scene, measured: Measured) -> list[Path]:
    """A profile of an API replica at full load, if a bar was missed or profiles are wanted."""
    if measured.fine and not stage.options.profile:
        return []
    stage.options.say("profiling the API")
    part = parts.api(
        stage.running.stack.directory,
        broker_url=stage.running.nats.url,
        store_url=stage.running.redis.url,
        name="api-profiled",
    )
    profile = await _start(stage, part, "api")
    await profile.member.wait_ready()
    await stage.load(profile.member)
    await stage.settle()
    return [await profile.finish()]


async def of_process(stage: Scene, measured: Measured) -> list[Path]:
    """The same of the consumer, while the API is at full load."""
    if measured.fine and not stage.options.profile:
        return []
    stage.options.say("profiling the consumer")
    await stage.process.stop()
    profile = await start_process(stage)
    await profile.member.wait_ready()
    await stage.load(stage.api)
    await stage.settle()
    return [await profile.finish()]


async def start_process(stage: Scene) -> Profile:
    """A consumer under cProfile, not waited for."""
    part = parts.process(
        stage.running.stack.directory,
        broker_url=stage.running.nats.url,
        store_url=stage.running.redis.url,
        name="process-profiled",
    )
    return await _start(stage, part, "process")


async def _start(stage: Scene, part: Part, module: str) -> Profile:
    path = OUT.absolute() / f"{datetime.now(UTC):%Y%m%dT%H%M%S}Z-{module}.profile"
    argv = [sys.executable, "-m", "cProfile", "-o", str(path), "-m", module]
    stage.commands[shlex.join(argv)] = None
    return Profile(await stage.running.stack.start(replace(part, argv=argv), wait=False), path)
