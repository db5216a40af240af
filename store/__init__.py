"""Stores, one file each behind the port in `core.store`, chosen by URL scheme."""

from __future__ import annotations

from core.endpoints import Endpoint
from core.errors import SettingsError
from core.settings import Durability, Keeping
from core.store import Store


def open_store(endpoint: Endpoint, keeping: Keeping, durability: Durability = "confirmed", replicas: int = 0) -> Store:
    """The store at `endpoint`, not started; how firmly it keeps what it counted is part of what its `check` asks, and
    `replicas` of it must have what it tells to be counted. Raises SettingsError."""
    if endpoint.scheme != "redis":
        raise SettingsError(f"STORE_URL: no store for {endpoint.scheme}://; known: redis://")
    from store.redis import RedisStore

    endpoint.warn_if_overheard()
    return RedisStore(
        endpoint,
        horizon_s=keeping.horizon_s,
        idempotency_s=keeping.idempotency_s,
        durability=durability,
        replicas=replicas,
    )
