"""Brokers, one file each behind the port in `brokers.base`, chosen by URL scheme and imported only then.

Further ones come with packages of their own, by the entry point group `fanrate.brokers`: docs/write-a-broker.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, cast

from brokers.base import Broker
from core.commands import remedy
from core.durability import Durability
from core.endpoints import Endpoint
from core.errors import SettingsError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS: Final = "fanrate.brokers"
"""The entry point group: a name is a URL scheme, a value an `Adapter`."""

_ADAPTERS: Final = {
    "amqp": "brokers.rabbit:RabbitBroker",
    "kafka": "brokers.kafka:KafkaBroker",
    "nats": "brokers.nats:NatsBroker",
    "nats+core": "brokers.nats_core:NatsCoreBroker",
    "redis": "brokers.redis_streams:RedisBroker",
}


class Adapter(Protocol):
    """Makes a broker, not started. Raises SettingsError for an endpoint it cannot use or a durability it never
    gives."""

    def __call__(self, endpoint: Endpoint, *, name: str, durability: Durability) -> Broker: ...


def schemes() -> list[str]:
    """The URL schemes of brokers that a service can be pointed at."""
    return sorted(_adapters())


def open_broker(endpoint: Endpoint, *, name: str, durability: Durability = "confirmed") -> Broker:
    """The adapter for `endpoint`, not started; `name` is how the connection introduces itself. Raises SettingsError."""
    scheme = endpoint.scheme
    if scheme == "memory":
        run = remedy("make run", "fanrate run")
        raise SettingsError(f"BROKER_URL memory:// lives within one process: use the embedded service ({run})")
    adapters = _adapters()
    if scheme not in adapters:
        raise SettingsError(f"BROKER_URL: no broker for {scheme}://; known: {schemes()}")
    try:
        adapter = cast(Adapter, adapters[scheme].load())
    except (ImportError, AttributeError) as exc:
        raise SettingsError(f"BROKER_URL: the broker for {scheme}:// cannot be loaded: {exc}") from exc
    endpoint.warn_if_overheard()
    return adapter(endpoint, name=name, durability=durability)


def _adapters() -> dict[str, EntryPoint]:
    """Scheme -> adapter; the project's own come before others of the same scheme."""
    # The import takes longer than all of `fanrate healthy` may.
    from importlib.metadata import EntryPoint, entry_points

    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    return {**found, **{name: EntryPoint(name, value, ENTRY_POINTS) for name, value in _ADAPTERS.items()}}
