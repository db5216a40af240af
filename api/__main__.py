"""`python -m api`: one replica of the HTTP interface, in front of a broker; or several, with WORKERS."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from api.inline import InlineBroker
from api.service import ApiService
from api.workers import OPTION, Workers, leash
from brokers import open_broker
from brokers.base import Broker
from core import program
from core.lifecycle import serve
from core.logs import configure
from core.sections import load
from core.settings import ApiSettings
from core.store import Store
from core.work import Work
from store import open_store


def main(arguments: Sequence[str] | None = None, prog: str = "python -m api") -> int:
    """Run until a signal; the exit code."""
    parser = program.parser(prog, "Takes rates over HTTP and publishes them to a broker.", ApiSettings)
    parser.add_argument(OPTION, type=int, help=argparse.SUPPRESS)
    worker: int | None = parser.parse_args(arguments).worker
    program.run(lambda: _serve(worker))
    return 0


async def _serve(worker: int | None) -> None:
    settings = load(ApiSettings)
    if worker is None and settings.workers > 1:
        await _serve_workers(settings)
    else:
        await _serve_replica(settings, worker)


async def _serve_workers(settings: ApiSettings) -> None:
    configure(settings, service="api")
    async with _replica(settings):
        pass  # what is wrong with the settings is told here, once, before any worker starts
    workers = Workers(settings.workers, settings.host, settings.port)
    await serve(workers, drain_s=settings.drain_s, started=lambda: _workers_started(workers, settings))


async def _serve_replica(settings: ApiSettings, worker: int | None) -> None:
    stop = asyncio.Event()
    if worker is None:
        configure(settings, service="api")
    else:
        configure(settings, service="api", worker=str(worker))
        await leash(stop)
    async with _replica(settings, worker) as service:
        await serve(service, drain_s=settings.drain_s, started=lambda: _started(service), stop=stop)


@asynccontextmanager
async def _replica(settings: ApiSettings, worker: int | None = None) -> AsyncIterator[ApiService]:
    """One replica, not started; its broker and store are closed at the end. Raises SettingsError."""
    store = open_store(settings.store, settings, settings.durability, settings.store_replicas)
    try:
        broker = _broker(settings, store)
        try:
            first = settings.worker_health_port
            yield ApiService(
                broker,
                store,
                settings,
                topic=settings.topic,
                groups=settings.group_names,
                shared=worker is not None,
                health_port=first + worker if first and worker is not None else None,
            )
        finally:
            await broker.close()
    finally:
        await store.close()


def _broker(settings: ApiSettings, store: Store) -> Broker:
    if settings.dispatch == "inline":
        return InlineBroker(store, Work(settings.work_s, settings.work_concurrency))
    return open_broker(settings.broker, name="fanrate-api", durability=settings.durability)


def _started(service: ApiService) -> None:
    program.settle_memory()
    _log_start(service)


def _log_start(service: ApiService) -> None:
    structlog.get_logger().info("listening", url=service.url)


def _workers_started(workers: Workers, settings: ApiSettings) -> None:
    """They listen when each of them says so."""
    structlog.get_logger().info("workers_started", url=workers.url, workers=settings.workers)


if __name__ == "__main__":
    sys.exit(main())
