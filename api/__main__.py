"""`python -m api`: one replica of the HTTP interface, in front of a broker."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import structlog

from api.inline import InlineBroker
from api.service import ApiService
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
    text = "Takes rates over HTTP and publishes them to a broker."
    program.parser(prog, text, ApiSettings).parse_args(arguments)
    program.run(_serve)
    return 0


async def _serve() -> None:
    settings = load(ApiSettings)
    configure(settings, service="api")
    store = open_store(settings.store, settings, settings.durability, settings.store_replicas)
    broker = _broker(settings, store)
    try:
        service = ApiService(broker, store, settings, topic=settings.topic, groups=settings.group_names)
        await serve(service, drain_s=settings.drain_s, started=lambda: _log_start(service))
    finally:
        await broker.close()
        await store.close()


def _broker(settings: ApiSettings, store: Store) -> Broker:
    if settings.dispatch == "inline":
        return InlineBroker(store, Work(settings.work_s, settings.work_concurrency))
    return open_broker(settings.broker, name="fanrate-api", durability=settings.durability)


def _log_start(service: ApiService) -> None:
    structlog.get_logger().info("listening", url=service.url)


if __name__ == "__main__":
    sys.exit(main())
