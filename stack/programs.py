"""Where the server programs are. Servers are not Python packages: `make services` installs them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from core.commands import remedy
from core.errors import FanrateError

MISSING_PROGRAM: Final = 3
"""The exit code when a needed server program is not installed."""

SYSTEM_FOLDERS: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian puts servers; seldom on a user's PATH."""


class MissingProgram(FanrateError):
    """A server program is not installed; the message says how to install it, for `broker` where that is known."""

    def __init__(self, name: str, broker: str | None = None) -> None:
        broker = broker or _broker_of(name)
        services = remedy(f"make services BROKER={broker}", f"fanrate services --broker {broker}")
        install = f"apt-get install {name}" if name in {"wrk", "openssl"} else services
        super().__init__(f"{name} is not installed; to install it: {install}")
        self.name = name


def _broker_of(name: str) -> str:
    """The broker whose services include the program `name`."""
    return {"java": "kafka", "kafka": "kafka", "epmd": "rabbit", "rabbitmq-server": "rabbit"}.get(name, "nats")


def own_folder() -> Path:
    """Where `make services` puts the programs it builds: outside the clone, so that all clones share them."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fanrate" / "bin"


def find(name: str) -> Path:
    """The program `name`; raises MissingProgram. What `make services` built comes first: it has the version we test."""
    folders = f"{own_folder()}:{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}"
    found = shutil.which(name, path=folders)
    if found is None:
        raise MissingProgram(name)
    return Path(found)
