"""What the service says it counted, read through its HTTP interface, and the wait until it has counted all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from bench.client import Address, ClientError, Connection
from bench.ledger import Ledger, Verdict
from core.errors import FanrateError
from core.store import Opened, Ranked, Summary

PATIENCE_S = 60.0
"""How long the counting may stand still before a wait gives up."""
_POLL_S = 0.25
_SETTLED_S = 1.0
_TRIES = 5
_PROBLEM = b'"urn:fanrate:problem:unknown-subject"'


class UnreadableService(FanrateError):
    """Nothing there answers as this service does."""


class _Summary(msgspec.Struct):
    count: int
    sum: int
    distribution: dict[int, int]


class _Opened(msgspec.Struct):
    opened: int
    abandoned: int


class _Ranked(msgspec.Struct):
    subject: str
    count: int
    mean: float


class _Page(msgspec.Struct):
    subjects: list[_Ranked]
    after: str | None


_summary = msgspec.json.Decoder(_Summary)
_opened = msgspec.json.Decoder(_Opened)
_page = msgspec.json.Decoder(_Page)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was counted at one time: in all, and under each subject that was asked for, zero included."""

    total: int
    subjects: dict[str, Summary]


@dataclass(slots=True)
class Reader:
    """Reads one service over up to `connections` kept connections; every call raises UnreadableService."""

    address: Address
    connections: int = 16
    timeout_s: float = 10.0
    _first: Connection = field(init=False)

    def __post_init__(self) -> None:
        self._first = Connection(self.address, timeout_s=self.timeout_s)

    def close(self) -> None:
        self._first.close()

    async def read(self, names: Iterable[str]) -> Reading:
        asked = list(names)
        total = (await self.totals()).count
        found = await self.subjects(asked)
        return Reading(total, {name: found.get(name, Summary()) for name in asked})

    async def totals(self) -> Summary:
        """All subjects together."""
        return _decoded(_summary, await self._get(self._first, "/rates"), "/rates")

    async def opened(self) -> Opened:
        answer = await self._get(self._first, "/opened")
        try:
            told = _opened.decode(answer)
        except msgspec.MsgspecError as exc:
            raise UnreadableService(f"GET /opened: {exc}") from exc
        return Opened(told.opened, told.abandoned)

    async def all_subjects(self) -> list[Ranked]:
        """Every subject there is, page by page."""
        rows: list[Ranked] = []
        after: str | None = ""
        while after is not None:
            answer = await self._get(self._first, f"/subjects?after={after}")
            try:
                page = _page.decode(answer)
            except msgspec.MsgspecError as exc:
                raise UnreadableService(f"GET /subjects: {exc}") from exc
            rows += [Ranked(row.subject, row.count, row.mean) for row in page.subjects]
            after = page.after
        return rows

    async def subjects(self, names: Iterable[str]) -> dict[str, Summary]:
        """What was counted under each of `names`; those of which nothing is known are left out."""
        left = iter(names)
        found: dict[str, Summary] = {}

        async def read() -> None:
            connection = Connection(self.address, timeout_s=self.timeout_s)
            try:
                for name in left:
                    path = f"/rates/{name}"
                    body = await self._get(connection, path)
                    if body:
                        found[name] = _decoded(_summary, body, path)
            finally:
                connection.close()

        tasks = [asyncio.create_task(read(), name=f"reading-{number}") for number in range(self.connections)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return found

    async def _get(self, connection: Connection, path: str) -> bytes:
        """The body of a 200, or nothing for an unknown subject. A service that is away or busy is asked again."""
        error = ""
        for _ in range(_TRIES):
            try:
                answer = await connection.get(path)
            except ClientError as exc:
                error = str(exc)
            else:
                if answer.status == HTTPStatus.OK:
                    return answer.body
                if answer.status == HTTPStatus.NOT_FOUND and _PROBLEM in answer.body:
                    return b""
                error = f"GET {path} was answered {answer.status}"
                if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                    break
            await asyncio.sleep(_POLL_S)
        raise UnreadableService(error)


def _decoded(decoder: msgspec.json.Decoder[_Summary], body: bytes, path: str) -> Summary:
    try:
        told = decoder.decode(body)
    except msgspec.MsgspecError as exc:
        raise UnreadableService(f"GET {path} is not a summary of rates: {exc}") from exc
    return Summary(told.count, told.sum, told.distribution)


async def await_counted(
    reader: Reader,
    ledger: Ledger,
    before: Reading,
    *,
    patience_s: float = PATIENCE_S,
    counted: Callable[[int], object] = lambda rates: None,
) -> Verdict:
    """Read until nothing that was answered 200 is missing, or nothing more was counted for `patience_s`; the verdict.

    `before` is the reading from before the first rate left; its subjects are examined together with the ledger's.
    `counted` is told how many more rates were counted so far. The cheap total is watched first; it may hold the rates
    of others, so each subject has the last word. A double may arrive after the last rate: all is read once more when
    all was counted. Raises UnreadableService if the service cannot be read for `patience_s`.
    """
    names = sorted({*ledger.subjects, *before.subjects})
    waiting = Patience(patience_s)
    while not waiting.over:
        try:
            total = (await reader.totals()).count - before.total
            counted(total)
            if total >= ledger.confirmed_rates:
                verdict = ledger.compare(before.subjects, await reader.subjects(names))
                if verdict.loss == 0:
                    break
                total = verdict.counted
        except UnreadableService:
            if waiting.over:
                raise
        else:
            waiting.observe(total)
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(_SETTLED_S)
    return ledger.compare(before.subjects, await reader.subjects(names))


class Patience:
    """Is over when a number has not grown for a while."""

    def __init__(self, seconds: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._seconds = seconds
        self._furthest = -1
        self._moved_at = self._clock()

    @property
    def over(self) -> bool:
        return self._clock() - self._moved_at > self._seconds

    def observe(self, number: int) -> None:
        if number > self._furthest:
            self._furthest, self._moved_at = number, self._clock()
