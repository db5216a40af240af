"""Profiles of a service under the load that missed its bar: where the time goes, by function.

The service runs once more, under cProfile, which slows it down: shares are to be read, not times.
"""

from __future__ import annotations

import io
import pstats
import shlex
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.bars import Measured
from bench.folding import fill, film_ratings, watch
from bench.runs import OUT
from bench.scene import Scene
from core.commands import child
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
    return [] if measured.fine and not stage.options.profile else [await profile_api(stage)]


async def of_process(stage: Scene, measured: Measured) -> list[Path]:
    """The same of the consumer, while the API is at full load."""
    return [] if measured.fine and not stage.options.profile else [await profile_process(stage)]


async def profile_api(stage: Scene) -> Path:
    """A replica of its own under cProfile, at full load."""
    stage.options.say("profiling the API")
    part = parts.api(
        stage.running.stack.directory,
        broker_url=stage.broker.url,
        store_url=stage.running.redis.url,
        env=stage.settings,
        name="api-profiled",
    )
    profile = await _start(stage, part, "api")
    await profile.member.wait_ready()
    await stage.load(profile.member)
    await stage.settle()
    return await profile.finish()


async def profile_process(stage: Scene) -> Path:
    """A consumer under cProfile in place of the scene's, while the API is at full load."""
    stage.options.say("profiling the consumer")
    await stage.process.stop()
    profile = await _start_process(stage)
    await profile.member.wait_ready()
    await stage.load(stage.api)
    await stage.settle()
    return await profile.finish()


async def profile_folding(stage: Scene, amount: int) -> Path:
    """A consumer under cProfile in place of the scene's, while it folds `amount` waiting film ratings."""
    stage.options.say("profiling the consumer")
    before, _ = await fill(stage, film_ratings(), amount)
    profile = await _start_process(stage)
    await watch(stage, before.total, amount)
    return await profile.finish()


async def _start_process(stage: Scene) -> Profile:
    """A consumer under cProfile, not waited for."""
    part = parts.process(
        stage.running.stack.directory,
        broker_url=stage.broker.url,
        store_url=stage.running.redis.url,
        env=stage.settings,
        name="process-profiled",
    )
    return await _start(stage, part, "process")


async def _start(stage: Scene, part: Part, module: str) -> Profile:
    path = OUT.absolute() / f"{datetime.now(UTC):%Y%m%dT%H%M%S}Z-{module}.profile"
    argv = [*child("cProfile"), "-o", str(path), "-m", module]
    stage.commands[shlex.join(argv)] = None
    return Profile(await stage.running.stack.start(replace(part, argv=argv), wait=False), path)
