"""What a crowd's books hold, by what each try was answered."""

from __future__ import annotations

import asyncio

from bench.crowd import Run

OK, REFUSED, AWAY, BROKEN = 200, 400, 503, 0


async def test_only_what_is_refused_at_once_was_never_sent(url: str) -> None:
    """Nothing of it is counted, so each rate that is confirmed is lost."""
    left = await asyncio.to_thread(_sent_and_told, url)
    assert left == [[], [], [OK], [OK], [OK]]


def _sent_and_told(url: str) -> list[list[int]]:
    """The answers that nobody asked for."""
    run = Run(url, patience_s=0.1)
    every = [[OK], [AWAY, OK], [AWAY, BROKEN, AWAY, OK], [REFUSED, OK], [BROKEN, REFUSED, OK]]
    for answers in every:
        run.send(run.next_rate(), lambda answers=answers: answers.pop(0), tries=3)  # type: ignore[misc]
    clean, lines = run.end()
    assert not clean
    assert lines[0] == "2 rates confirmed of 4 sent, 0 counted"
    assert lines[-1] == "LOSS 2 DUP 0"
    return every
