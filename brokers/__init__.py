"""Brokers, one file each behind the port in `brokers.base`, chosen by URL scheme and imported only then."""

from __future__ import annotations

from importlib import import_module
from typing import cast
from urllib.parse import urlsplit

from brokers.base import Broker
from core.errors import SettingsError

_ADAPTERS = {"nats": "brokers.nats:NatsBroker"}


def schemes() -> list[str]:
    """The URL schemes of brokers that a service can be pointed at."""
    return sorted(_ADAPTERS)


def open_broker(url: str, *, name: str) -> Broker:
    """The adapter for `url`, not started; `name` is how the connection introduces itself. Raises SettingsError."""
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        raise SettingsError("BROKER_URL memory:// lives within one process: use the embedded service (make run)")
    if scheme not in _ADAPTERS:
        raise SettingsError(f"BROKER_URL: no broker for {scheme + '://' if scheme else repr(url)}; known: {schemes()}")
    module, _, adapter = _ADAPTERS[scheme].partition(":")
    return cast(Broker, getattr(import_module(module), adapter)(url, name=name))
