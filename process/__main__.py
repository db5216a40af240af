"""`python -m process`: one counting process, or an auditing one, or one of two things done to dead letters by hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from brokers import open_broker
from brokers.base import Broker
from core import program
from core.commands import Subcommand
from core.errors import BrokerUnavailable, SettingsError
from core.lifecycle import serve, until
from core.logs import configure
from core.patience import Patience
from core.sections import load
from core.settings import ProcessSettings
from core.work import Work
from process.audit import Audit
from process.consumer import Consumer
from process.membership import Membership
from process.reader import Reading
from process.redrive import MOST_LETTERS, letters, redrive
from process.service import ProcessService, oldest_allowed_s
from store import open_store

CONNECT_WAIT_S = 5.0


def main(arguments: Sequence[str] | None = None, prog: str = "python -m process") -> int:
    """Run until a signal, or do what is asked for; the exit code."""
    options = _parser(prog).parse_args(arguments)
    if options.command == "dead":
        program.run(list_letters)
    elif options.command == "redrive":
        program.run(lambda: redrive_letters(expired=options.expired))
    else:
        program.run(lambda: consume(options.sink, options.file))
    return 0


async def consume(sink: str, file: Path | None) -> None:
    settings = load(ProcessSettings)
    check_sink(settings, sink, file)
    configure(settings, service="audit" if file else "process")
    reading = Reading(settings.read_topic_names, settings.group_names, settings.group_name)
    work = Work(settings.work_s, settings.work_concurrency)
    await (_audit(settings, reading, work, file) if file else _count(settings, reading, work))


async def _count(settings: ProcessSettings, reading: Reading, work: Work) -> None:
    store = open_store(settings.store, settings, settings.durability, settings.store_replicas)
    broker = open_broker(settings.broker, name="fanrate-process", durability=settings.durability)
    try:
        allowed_s = oldest_allowed_s(settings)
        consumer = Consumer(broker, store, topic=settings.topic, oldest_allowed_s=allowed_s, reading=reading, work=work)
        await _serve(
            ProcessService(consumer, host=settings.host, health_port=settings.health_port, store=store), settings
        )
    finally:
        await broker.close()
        await store.close()


async def _audit(settings: ProcessSettings, reading: Reading, work: Work, file: Path) -> None:
    patience = Patience()
    broker = open_broker(settings.broker, name="fanrate-audit", durability=settings.durability)
    audit = Audit(file, patience)
    try:
        allowed_s = oldest_allowed_s(settings)
        membership = Membership(broker, audit, reading, patience, oldest_allowed_s=allowed_s, work=work)
        await _serve(ProcessService(membership, host=settings.host, health_port=settings.health_port), settings)
    finally:
        await broker.close()
        audit.close()


async def _serve(service: ProcessService, settings: ProcessSettings) -> None:
    await serve(service, drain_s=settings.drain_s, started=lambda: _log_start(service))


def check_sink(settings: ProcessSettings, sink: str, file: Path | None) -> None:
    """Raises SettingsError for a group that is not the sink's: each has one job, and counting is the first one's."""
    counting_group, *others = settings.group_names
    if (sink == "audit") != (file is not None):
        raise SettingsError("--sink audit and --file FILE belong together")
    if sink == "counting" and settings.group_name != counting_group:
        raise SettingsError(f"GROUP {settings.group_name}: only {counting_group}, the first of GROUPS, counts")
    if sink == "audit" and settings.group_name not in others:
        raise SettingsError(
            f"GROUP {settings.group_name} counts, and --sink audit needs another of GROUPS: for example "
            f"GROUPS={counting_group},audit GROUP=audit"
        )


def _log_start(service: ProcessService) -> None:
    structlog.get_logger().info("listening", url=service.url)


async def list_letters() -> None:
    async with _connected() as (broker, settings):
        total = 0
        async for letter in letters(broker, settings.topic):
            total += 1
            print(msgspec.json.encode(letter).decode())
    print(f"{total} dead letter{'s' * (total != 1)}{_more(total)}", file=sys.stderr)


def _more(read: int) -> str:
    return f"; no more than {MOST_LETTERS} are read at one time, there may be others" if read >= MOST_LETTERS else ""


async def redrive_letters(*, expired: bool) -> None:
    async with _connected() as (broker, settings):
        done = await redrive(broker, settings.topic, expired=expired, topics=settings.topic_names(settings.topic))
    left = f"{done.cut} cut, {done.expired} expired, {done.back} that came back, {done.unreadable} unreadable"
    print(f"{done.sent} sent again; left: {left}{_more(done.read)}")
    if done.elsewhere:
        print(f"{done.elsewhere} left of topics that are not read so: DISPATCH and TOPICS must be the service's")
    if done.renamed:
        print("those that had expired have a new identity: they may count twice")


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[Broker, ProcessSettings]]:
    settings = load(ProcessSettings)
    configure(settings.model_copy(update={"log_level": "warning"}), service="redrive")
    broker = open_broker(settings.broker, name="fanrate-redrive", durability=settings.durability)
    try:
        await broker.start()
        if not await until(lambda: broker.connected, CONNECT_WAIT_S):
            raise BrokerUnavailable(f"no broker at BROKER_URL {settings.broker}")
        yield broker, settings
    finally:
        await broker.close()


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = program.parser(prog, "Counts rates from a broker into Redis, or audits them.", ProcessSettings)
    parser.add_argument("--sink", choices=["counting", "audit"], default="counting", help="what it does with the rates")
    parser.add_argument("--file", type=Path, help="for --sink audit: takes a line of JSON for each rate")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Subcommand)
    commands.add_parser("dead", help="list the dead letters, one JSON object a line, and leave them")
    again = commands.add_parser("redrive", help="send the dead letters again, except cut and expired ones")
    again.add_argument("--expired", action="store_true", help="also expired ones; they may count twice")
    return parser


if __name__ == "__main__":
    sys.exit(main())
