"""The tables of brokers, in README.md and docs/brokers.md, are those of the code: `python -m tests.docs.test_brokers`
writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brokers import open_broker
from brokers.base import Features
from core.endpoints import Endpoint
from tests.docs.pages import ROOT

PAGES = [ROOT / "README.md", ROOT / "docs" / "brokers.md"]
BROKERS = {
    "nats": ("NATS JetStream", "nats://HOST:4222"),
    "kafka": ("Kafka", "kafka://HOST:9092"),
    "rabbit": ("RabbitMQ", "amqp://USER:PASSWORD@HOST:5672/"),
    "redis": ("Redis Streams", "redis://HOST:6379/0"),
    "nats+core": ("NATS without JetStream", "nats+core://HOST:4222"),
}
"""The value of BROKER -> its name and the form of its URL."""

_HEAD = [
    "broker",
    "`make up BROKER=`",
    "BROKER_URL",
    "a 200 means",
    "when full",
    "a group that is added later gets",
    "largest message",
]
_TABLE = re.compile(r"(?<=<!-- brokers -->\n).*?(?=<!-- /brokers -->)", re.DOTALL)


def features(url: str) -> Features:
    """Of the adapter for `url`, unconnected, at the lowest durability: each one gives that."""
    concrete = url.replace("HOST", "localhost").replace("USER:PASSWORD", "guest:guest")
    return open_broker(Endpoint.of(concrete), name="docs", durability="relaxed").features


def table() -> str:
    rows = [_HEAD, ["---"] * len(_HEAD)]
    for broker, (name, url) in BROKERS.items():
        has = features(url)
        rows.append(
            [
                name,
                f"`{broker}`",
                f"`{url}`",
                "sent: it may be lost" if has.at_most_once else "stored, and counted once",
                _when_full(has),
                "also what the topic still holds" if has.replays else "what comes from then on",
                f"{has.max_message_bytes // 1024} KiB",
            ]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _when_full(has: Features) -> str:
    if has.at_most_once:
        return "what does not fit is lost"
    return "503, nothing is dropped" if has.refuses_when_full else "only its disk can be: docs/operations.md"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_table_of_brokers_is_that_of_the_code(path: Path) -> None:
    shown = _TABLE.search(path.read_text(encoding="utf-8"))
    assert shown, f"{path.name} has no table of brokers"
    assert shown[0] == table()


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(_TABLE.sub(lambda _: table(), each.read_text(encoding="utf-8")), encoding="utf-8")
