"""What packages of other projects may rely on: the broker port, its errors, and the version.

docs/write-a-broker.md shows a broker that stands on nothing else. All other modules may change with any release, except
the suite that certifies brokers, `brokers.conformance`. This imports no broker's client and no part of a service.
"""

from __future__ import annotations

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
