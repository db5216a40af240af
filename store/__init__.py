"""Stores, one file each behind the port in `core.store`, chosen by URL scheme."""

from __future__ import annotations

from urllib.parse import urlsplit

from core.errors import SettingsError
from core.settings import Durability, Keeping
from core.store import Store


def open_store(url: str, keeping: Keeping, durability: Durability = "confirmed") -> Store:
    """The store at `url`, not started; how firmly it keeps what it counted is part of what its `check` asks. Raises
    SettingsError."""
    scheme = urlsplit(url).scheme
    if scheme != "redis":
        raise SettingsError(f"STORE_URL: no store for {scheme + '://' if scheme else repr(url)}; known: redis://")
    from store.redis import RedisStore

    return RedisStore(url, horizon_s=keeping.horizon_s, idempotency_s=keeping.idempotency_s, durability=durability)
