"""The books of a crowd that locust makes: what its users sent, and whether exactly that was counted.

Knows nothing of locust. What reads the service is asyncio, which runs in the one greenlet that asks; the others go on.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import TypeVar

from bench.client import Address
from bench.ledger import Ledger, Verdict
from bench.reading import Reader, UnreadableService, await_counted
from bench.replay import ratings
from core.rates import Rate

Result = TypeVar("Result")


class Run:
    """One test from its start to its stop: its ratings, its ledger, and what had been counted before. Raises
    WrongAddress and UnreadableService."""

    def __init__(self, url: str, *, patience_s: float) -> None:
        self._url = url
        self._patience_s = patience_s
        self._ledger = Ledger()
        rates = ratings()
        self._rates = itertools.cycle(rates)
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._before = read(url, lambda reader: reader.read({subject for subject, _ in rates}))

    def next_rate(self) -> Rate:
        return next(self._rates)

    def next_key(self) -> str:
        return f"locust-{self._name}-{next(self._numbers)}"

    def send(self, rate: Rate, attempt: Callable[[], int], *, tries: int = 1) -> None:
        """Book `rate`, which each call of `attempt` sends and answers with a status, 0 for none. More than one try is
        for a rate with a key. One that is refused at once was not taken in; one refused later may have been before."""
        self._ledger.send([rate])
        for number in range(tries):
            status = attempt()
            if status == HTTPStatus.OK:
                self._ledger.confirm([rate])
                return
            if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
                if number == 0:
                    self._ledger.withdraw([rate])
                return

    def end(self) -> tuple[bool, list[str]]:
        """Wait until all that was confirmed is counted; whether exactly that was, and what there is to say."""
        try:
            verdict = self._verdict()
        except UnreadableService as exc:
            confirmed = self._ledger.confirmed_rates
            return False, [f"the service is gone, with {confirmed} confirmed rates unaccounted for: {exc}"]
        told = f"{verdict.confirmed} rates confirmed of {verdict.sent} sent, {verdict.counted} counted"
        return verdict.clean, [told, *verdict.lines(), str(verdict)]

    def _verdict(self) -> Verdict:
        return read(
            self._url,
            lambda reader: await_counted(reader, self._ledger, self._before, patience_s=self._patience_s),
        )


def read(url: str, ask: Callable[[Reader], Coroutine[None, None, Result]]) -> Result:
    """What the service at `url` answers; raises WrongAddress and UnreadableService."""

    async def reading() -> Result:
        reader = Reader(Address.of(url))
        try:
            return await ask(reader)
        finally:
            reader.close()

    return asyncio.run(reading())
