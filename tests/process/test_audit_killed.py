"""An audit that is killed again and again while rates come: its file has each of them, whole."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec

from brokers.redis_streams import RedisBroker
from core.batches import Batch, encode
from core.endpoints import Endpoint
from core.lifecycle import until
from stack import parts
from stack.supervisor import Stack
from tests.servers import needs

KILLS = 4
RATES = 8
"""In each batch."""
PAUSE_S = 0.005
GROUPS = ["counters", "audit"]

Rate = tuple[str, int, int]
"""Producer, sequence, index."""


class Publishing:
    """A producer whose batches go to the broker for as long as it is not stopped."""

    def __init__(self, broker: RedisBroker) -> None:
        self.batches = 0
        self._broker = broker
        self._producer = uuid4().hex
        self._stopped = False
        self._task = asyncio.create_task(self._publish())

    async def stop(self) -> set[Rate]:
        """What was confirmed."""
        self._stopped = True
        await self._task
        return {(self._producer, sequence, index) for sequence in range(self.batches) for index in range(RATES)}

    async def _publish(self) -> None:
        while not self._stopped:
            rates = [(f"film-{index}", index) for index in range(RATES)]
            batch = Batch(1, 0, self._producer, self.batches, (self.batches + 1) * RATES, time.time(), rates)
            await self._broker.publish("rates", encode(batch), 5)
            self.batches += 1
            await asyncio.sleep(PAUSE_S)


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    producer: str
    sequence: int
    index: int
    subject: str
    rate: int
    at: float


def rates_in(path: Path) -> set[Rate]:
    """Raises DecodeError for a line that is torn, except the last: it may be about to be written."""
    content = path.read_bytes()
    lines = msgspec.json.Decoder(Line).decode_lines(content[: content.rfind(b"\n") + 1])
    return {(line.producer, line.sequence, line.index) for line in lines}


@asynccontextmanager
async def audit(url: str, file: Path, log: Path) -> AsyncIterator[None]:
    """`python -m process --sink audit`, killed at the end."""
    argv = [sys.executable, "-m", "process", "--sink", "audit", "--file", str(file)]
    settings = {"BROKER_URL": url, "HEALTH_PORT": "0", "GROUPS": ",".join(GROUPS), "GROUP": "audit"}
    with log.open("ab") as written:
        member = await asyncio.to_thread(
            subprocess.Popen, argv, env={**os.environ, **settings}, stdout=written, stderr=written
        )
    try:
        yield
    finally:
        member.kill()
        await asyncio.to_thread(member.wait)


async def test_every_rate_is_there_after_kills(tmp_path: Path) -> None:
    needs("redis-server")
    file, log = tmp_path / "audit.ndjson", tmp_path / "audit.log"

    def size() -> int:
        return file.stat().st_size if file.exists() else 0

    async with Stack(tmp_path) as stack:
        server = await stack.start(parts.redis_streams(tmp_path))
        broker = RedisBroker(Endpoint.of(server.url), name="test")
        await broker.start()
        assert await until(lambda: broker.connected, 5)
        await broker.ensure("rates", GROUPS)
        publishing = Publishing(broker)
        for _ in range(KILLS):
            before = size()
            async with audit(server.url, file, log):
                assert await until(lambda least=before: size() > least, 10), log.read_text()  # type: ignore[misc]
        published = await publishing.stop()
        assert len(published) > KILLS * RATES
        async with audit(server.url, file, log):
            await until(lambda: published <= rates_in(file), 20, 0.2)
        assert published - rates_in(file) == set(), log.read_text()
        await broker.close()
