"""The audit sink: each rate of each batch as one line of JSON in a file, at least once.

A second kind of consumer: it reads in a group of its own and knows nothing of counting. Lines of a batch that came
again stand there twice; `producer`, `sequence` and `index` together tell one rate from all others.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock

import msgspec
import structlog
from prometheus_client.core import Metric

from brokers.base import Message
from core.batches import Batch
from core.errors import SettingsError, StoreUnavailable
from core.patience import Patience
from core.telemetry import counter
from process.reader import Fetched

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode
_HEAD = b'{"producer":"'
_BLOCK_BYTES = 64 * 1024


class Audit:
    """The sink. A message came to an end when its lines are on disk."""

    def __init__(self, path: Path, patience: Patience) -> None:
        """Raises SettingsError if `path` cannot be written, another process writes it, or it is something else."""
        self._file = AuditFile(path)
        self._patience = patience
        self._rates = 0

    async def prepare(self) -> None: ...

    async def settle(self, topic: str, fetched: Fetched) -> list[Message]:
        """A malformed message is passed over: the counting group keeps it as a dead letter."""
        for _, error in fetched.malformed:
            log.warning("malformed_message_passed_over", topic=topic, error=error)
        passed_over = [message for message, _ in fetched.malformed]
        batches = [batch for batch, _ in fetched.batches]
        if not await self._patience.done("the audit file", lambda: self._write(batches)):
            return passed_over
        self._rates += sum(len(batch.rates) for batch in batches)
        return [message for _, message in fetched.batches] + passed_over

    def check(self) -> str:
        return ""

    def metrics(self) -> Iterator[Metric]:
        yield counter("fanrate_audited_rates", "Rates written to the audit file", self._rates)

    def close(self) -> None:
        self._file.close()

    async def _write(self, batches: Sequence[Batch]) -> None:
        await asyncio.to_thread(self._file.append, map(_lines, batches))


class AuditFile:
    """Whole lines, on disk. A line that a kill cut off is cut away when the file is opened, and so are the zeros that a
    power failure may leave in its place. Any thread may call."""

    def __init__(self, path: Path) -> None:
        self._one_at_a_time = Lock()
        self._torn = False
        """Whether something may stand behind the last whole line that is on disk."""
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._end = self._whole_bytes(path)
                os.ftruncate(self._descriptor, self._end)
                _make_name_durable(path)
            except BaseException:
                os.close(self._descriptor)
                raise
        except BlockingIOError as exc:
            raise SettingsError(f"--file {path}: another process writes it; give each its own") from exc
        except OSError as exc:
            raise SettingsError(f"--file {path}: {exc.strerror}") from exc

    def append(self, parts: Iterable[bytes]) -> None:
        """Returns when the lines in `parts` are on disk. Raises StoreUnavailable, after which they are to be given
        again: what was written of them will be cut away."""
        with self._one_at_a_time:
            try:
                if self._torn:
                    os.ftruncate(self._descriptor, self._end)
                self._torn = True
                length_bytes = sum(self._write(part) for part in parts)
                os.fsync(self._descriptor)
            except OSError as exc:
                raise StoreUnavailable(str(exc)) from exc
            self._end += length_bytes
            self._torn = False

    def close(self) -> None:
        """Waits for what is being written."""
        with self._one_at_a_time:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, part: bytes) -> int:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return len(part)

    def _whole_bytes(self, path: Path) -> int:
        """Where the last whole line ends; raises SettingsError if what follows is not the beginning of one of ours."""
        size = os.fstat(self._descriptor).st_size
        end = self._end_of_text(size)
        tail = os.pread(self._descriptor, min(4096, end), max(0, end - 4096))
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn.startswith(_HEAD[: len(torn)]):
            raise SettingsError(f"--file {path}: does not end as an audit does; it is left as it is")
        whole = end - len(torn)
        if whole < size:
            log.warning("torn_line_cut", file=str(path), bytes=size - whole)
        return whole

    def _end_of_text(self, size: int) -> int:
        """Where the zeros begin that end the file; its size if there are none."""
        while size:
            begin = max(0, size - _BLOCK_BYTES)
            if text := os.pread(self._descriptor, size - begin, begin).rstrip(b"\0"):
                return begin + len(text)
            size = begin
        return 0


def _lines(batch: Batch) -> bytes:
    of = {"producer": batch.producer, "sequence": batch.sequence}
    return b"".join(
        _encode({**of, "index": index, "subject": subject, "rate": rate, "at": batch.at}) + b"\n"
        for index, (subject, rate) in enumerate(batch.rates)
    )


def _make_name_durable(path: Path) -> None:
    directory = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
