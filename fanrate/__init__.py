"""What packages of other projects may rely on: the broker port, its errors, and the version.

docs/write-a-broker.md shows a broker that stands on nothing else. All other modules may change with any release, except
the suite that certifies brokers, `brokers.conformance`. This imports no broker's client and no part of a service; and
nothing at all before it is asked for, because the program `fanrate` comes by here first.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers know this name; to import it takes longer than all else here
if TYPE_CHECKING:
    from brokers.base import Broker, Features, Message, Subscription
    from core.durability import Durability
    from core.endpoints import Endpoint
    from core.errors import (
        BrokerError,
        BrokerFull,
        BrokerUnavailable,
        MessageTooLarge,
        PublishTimeout,
        SettingsError,
    )
    from core.version import __version__
else:
    _HOMES = {
        "brokers.base": ("Broker", "Features", "Message", "Subscription"),
        "core.durability": ("Durability",),
        "core.endpoints": ("Endpoint",),
        "core.version": ("__version__",),
    }

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((home for home, names in _HOMES.items() if name in names), "core.errors")
        value = globals()[name] = getattr(import_module(home), name)
        return value


__all__ = [
    "Broker",
    "BrokerError",
    "BrokerFull",
    "BrokerUnavailable",
    "Durability",
    "Endpoint",
    "Features",
    "Message",
    "MessageTooLarge",
    "PublishTimeout",
    "SettingsError",
    "Subscription",
    "__version__",
]
