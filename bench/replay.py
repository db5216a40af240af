"""The replay: real ratings of films go through HTTP, and each subject's growth is held against the file.

Every rate carries an Idempotency-Key unique to this run and round, so that one which was answered 503, or whose
connection broke, is sent again until it is confirmed and still counts once. Other traffic on other subjects does not
disturb it; two replays of the same file at one time do, and read as doubles of each other.
"""

from __future__ import annotations

import asyncio
import csv
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import NoReturn

from tqdm import tqdm

from bench.client import Address
from bench.ledger import Ledger, Verdict
from bench.load import Report, Request, closed_loop, rate_request
from bench.progress import rates_bar
from bench.reading import PATIENCE_S, Reader, Reading, UnreadableService, await_counted
from core.errors import FanrateError
from core.rates import Rate

CONNECTIONS = 64
TIMES = 20


class ReplayFailed(FanrateError):
    """The replay could not be carried through."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result; `counted_s` is the time from the first request until all was found counted."""

    verdict: Verdict
    report: Report
    counted_s: float


def ratings() -> list[Rate]:
    """The film ratings of the data file, in its order."""
    text = files("bench").joinpath("data", "ratings.csv").read_text(encoding="utf-8")
    return [(row["subject"], int(row["rate"])) for row in csv.DictReader(text.splitlines())]


async def replay(url: str, times: int, *, patience_s: float = PATIENCE_S) -> Replayed:
    """Send the file `times` times to the service at `url` and wait until all is counted.

    Raises ReplayFailed if there is no such service, nothing is confirmed for `patience_s` or a rate is refused for
    good, and WrongAddress for a URL that can't be one.
    """
    address = Address.of(url)
    rates = ratings()
    reader = Reader(address)
    try:
        before = await reader.read({subject for subject, _ in rates})
        return await _send_and_count(address, rates, times, reader, before, patience_s)
    except UnreadableService as exc:
        raise ReplayFailed(f"no Fanrate can be read at {url}: {exc}") from exc
    finally:
        reader.close()


async def _send_and_count(
    address: Address, rates: list[Rate], times: int, reader: Reader, before: Reading, patience_s: float
) -> Replayed:
    clock = asyncio.get_running_loop().time
    ledger = Ledger()
    start = clock()
    with rates_bar("sent", len(rates) * times) as sent:
        report = await _send(_requests(address, rates, times), address, ledger, sent, patience_s)
    with rates_bar("counted", ledger.confirmed_rates) as bar:
        verdict = await await_counted(
            reader, ledger, before, patience_s=patience_s, counted=lambda rates: bar.update(max(0, rates - bar.n))
        )
    return Replayed(verdict, report, clock() - start)


def _requests(address: Address, rates: list[Rate], times: int) -> Iterator[Request]:
    run = secrets.token_hex(8)
    for round_number in range(times):
        for line, rate in enumerate(rates):
            yield rate_request(address, rate, key=f"replay-{run}-{round_number}-{line}")


async def _send(
    requests: Iterator[Request], address: Address, ledger: Ledger, bar: tqdm[NoReturn], patience_s: float
) -> Report:
    """Send all, or raise ReplayFailed once nothing was confirmed for `patience_s`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    watchdog = loop.call_later(patience_s, stop.set)

    def confirmed(rates: int) -> None:
        nonlocal watchdog
        bar.update(rates)
        if watchdog.when() - loop.time() < patience_s - 1:
            watchdog.cancel()
            watchdog = loop.call_later(patience_s, stop.set)

    try:
        report = await closed_loop(
            address, requests, ledger, connections=CONNECTIONS, stop=stop, retry=True, confirmed=confirmed
        )
    finally:
        watchdog.cancel()
    if stop.is_set():
        raise ReplayFailed(f"nothing was confirmed for {patience_s:g} s: {report.outcomes}")
    if rejected := sum(count for status, count in report.statuses.items() if _is_final(status)):
        raise ReplayFailed(f"{rejected} rates were refused for good: {report.outcomes}")
    return report


def _is_final(status: int) -> bool:
    return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR


def lines(result: Replayed) -> list[str]:
    """The result for people; the last line is the verdict."""
    verdict, report = result.verdict, result.report
    per_s = verdict.confirmed / report.seconds
    again = f", {report.failed} requests sent again" if report.failed else ""
    return [
        f"{verdict.confirmed} rates confirmed in {report.seconds:.1f} s: {per_s:.0f} rates/s{again}",
        f"{verdict.counted} counted, the last seen {result.counted_s:.1f} s after the start",
        *verdict.lines(),
        str(verdict),
    ]
