"""Which of several topics a request goes to. Any of them is right: where a rate was counted does not show."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import cycle
from zlib import crc32

from core.rates import Rate
from core.settings import TopicChoice

Choose = Callable[[Sequence[Rate]], int]
"""The index of the topic for a request of these rates."""


def chooser(choice: TopicChoice, topics: int) -> Choose:
    """`hash` goes by CRC-32 of the first subject's UTF-8, the same in each replica and each run."""
    if choice == "hash":
        return lambda rates: crc32(rates[0][0].encode()) % topics
    if choice == "random":
        return lambda _: random.randrange(topics)  # noqa: S311 - spreads load, hides nothing
    turns = cycle(range(topics))
    return lambda _: next(turns)
