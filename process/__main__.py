"""`python -m process`: one counting process, or one of two things done to dead letters by hand."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from brokers import open_broker
from brokers.base import Broker
from core import program
from core.errors import BrokerUnavailable
from core.lifecycle import serve, until
from core.logs import configure
from core.settings import ProcessSettings, load
from process.redrive import MOST_LETTERS, letters, redrive
from process.service import ProcessService
from store import open_store

CONNECT_WAIT_S = 5.0


async def consume() -> None:
    settings = load(ProcessSettings)
    configure(settings, service="process")
    broker = open_broker(settings.broker_url, name="fanrate-process")
    store = open_store(settings.store_url, settings)
    try:
        service = ProcessService(
            broker, store, settings, topic=settings.topic, host=settings.host, health_port=settings.health_port
        )
        await serve(service, drain_s=settings.drain_s, started=lambda: _log_start(service))
    finally:
        await broker.close()
        await store.close()


def _log_start(service: ProcessService) -> None:
    structlog.get_logger().info("listening", url=service.url)


async def list_letters() -> None:
    async with _connected() as (broker, settings):
        total = 0
        async for letter in letters(broker, settings.topic):
            total += 1
            print(msgspec.json.encode(letter).decode())
    print(f"{total} dead letters{_more(total)}")


def _more(read: int) -> str:
    return f"; no more than {MOST_LETTERS} are read at one time, there may be others" if read >= MOST_LETTERS else ""


async def redrive_letters(*, expired: bool) -> None:
    async with _connected() as (broker, settings):
        done = await redrive(broker, settings.topic, expired=expired)
    left = f"{done.cut} cut, {done.expired} expired, {done.back} that came back, {done.unreadable} unreadable"
    print(f"{done.sent} sent again; left: {left}{_more(done.read)}")
    if expired and done.sent:
        print("those that had expired have a new identity: they may count twice")


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[Broker, ProcessSettings]]:
    settings = load(ProcessSettings)
    configure(settings.model_copy(update={"log_level": "warning"}), service="redrive")
    broker = open_broker(settings.broker_url, name="fanrate-redrive")
    try:
        await broker.start()
        if not await until(lambda: broker.connected, CONNECT_WAIT_S):
            raise BrokerUnavailable(f"no broker at BROKER_URL {settings.broker_url}")
        yield broker, settings
    finally:
        await broker.close()


def _arguments() -> argparse.Namespace:
    parser = program.parser("process", "Counts rates from a broker into Redis.", ProcessSettings)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("dead", help="list the dead letters, one JSON object a line, and leave them")
    again = commands.add_parser("redrive", help="send the dead letters again, except cut and expired ones")
    again.add_argument("--expired", action="store_true", help="also expired ones; they may count twice")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    if arguments.command == "dead":
        program.run(list_letters)
    elif arguments.command == "redrive":
        program.run(lambda: redrive_letters(expired=arguments.expired))
    else:
        program.run(consume)
