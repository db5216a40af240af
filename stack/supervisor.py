"""The stack: the parts that run together, what is said about them, and the order in which they end."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from core.lifecycle import Tasks
from stack.guardian import Guardian
from stack.member import KILLED_S, READY_S, Member, PartFailed
from stack.parts import Part

PARTS_FILE: Final = "parts.json"


def _nothing(line: str) -> None:
    """Say nothing."""


class Stack:
    """Runs parts, with all their files within `directory`, and ends them with itself, even when it is killed.

    async with Stack(directory) as stack:
        redis = await stack.start(parts.redis(stack.directory))
        await redis.crash()

    `say` is given one line for each thing that happens to a part. `inherit` are descriptors that stay open until the
    last part has ended, such as a lock's. `DIRECTORY/parts.json` always lists what runs.
    """

    def __init__(self, directory: Path, *, say: Callable[[str], None] = _nothing, inherit: Sequence[int] = ()) -> None:
        self.directory = directory.absolute()
        self.members: list[Member] = []
        self._say = say
        self._inherit = inherit

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.failed: asyncio.Future[PartFailed] = asyncio.get_running_loop().create_future()
        """Done when a part is down for good without having been told to."""
        self._tasks = Tasks()
        self._guardian = Guardian(self._inherit)
        self._write_parts()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            await self._close()

    async def start(
        self, part: Part, *, wait: bool = True, supervised: bool = True, timeout_s: float = READY_S
    ) -> Member:
        """Start `part` and, with `wait`, return once it is ready; raises PortTaken or PartFailed. `wait=False` is for
        starting several at once, or one that cannot be ready yet."""
        member = Member(part, self._guardian, self._tasks, self._say, self._part_changed)
        member.supervised = supervised
        self.members.append(member)
        await member.start(wait=wait, timeout_s=timeout_s)
        return member

    async def stop(self) -> None:
        """Stop all parts gracefully, from the outside in, those of one tier at once."""
        outside_in = sorted(self.members, key=lambda member: -member.part.tier)
        for _, members in groupby(outside_in, key=lambda member: member.part.tier):
            await asyncio.gather(*(self._stop(member) for member in members))

    async def _stop(self, member: Member) -> None:
        if member.running:
            self._say(f"stopping {member.name}")
        await member.stop()

    async def _close(self) -> None:
        """Leave nothing behind, even when `stop` was interrupted."""
        for member in self.members:
            member.give_up()
        self._guardian.close()
        await self._tasks.wait(KILLED_S)
        await self._tasks.cancel()
        (self.directory / PARTS_FILE).unlink(missing_ok=True)

    def _part_changed(self) -> None:
        self._write_parts()
        failure = next((member.failure for member in self.members if member.failure), None)
        if failure is not None and not self.failed.done():
            self.failed.set_result(failure)

    def _write_parts(self) -> None:
        parts = [
            {"name": member.name, "pid": member.pid, "address": member.address, "log": str(member.log)}
            for member in self.members
            if member.running
        ]
        target = self.directory / PARTS_FILE
        fresh = target.with_suffix(".new")
        fresh.write_text(json.dumps(parts, indent=2) + "\n")
        os.replace(fresh, target)
