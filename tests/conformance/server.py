"""A server of the tests' own: run by the stack, on an event loop of its own, so that a test sees no task but the ones
that brokers leave behind."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from stack import parts
from stack.member import Member
from stack.probes import LISTENS
from stack.supervisor import Stack
from tests.servers import needs

CALL_S = 30.0

_T = TypeVar("_T")


class NatsServer:
    """May be started again after it was killed; keeps address and data. `settings` replace the usual ones."""

    def __init__(self, directory: Path, settings: str | None = None) -> None:
        needs("nats-server")
        self._part = parts.nats(directory)
        self._directory = directory
        if settings is not None:
            configuration = directory / "nats.conf"
            listen = f"listen: {self._part.address}\n"
            self._part = replace(
                self._part,
                probe=LISTENS,
                argv=[self._part.argv[0], "-c", str(configuration)],
                files={configuration: listen + settings.replace("%s", str(directory / "data"))},
            )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stack", daemon=True)
        self._thread.start()
        self._stack = self._call(Stack(directory).__aenter__())
        self._member: Member | None = None

    @property
    def url(self) -> str:
        return self._part.url

    def start(self) -> None:
        """Return when the server is ready."""
        if self._member is None:
            self._member = self._call(self._stack.start(self._part, supervised=False))
        else:
            self._call(self._member.start())

    def kill(self) -> None:
        """kill -9."""
        if self._member is not None:
            self._call(self._member.kill())

    def freeze(self) -> None:
        self._running.freeze()

    def thaw(self) -> None:
        self._running.thaw()

    def lose_data(self) -> None:
        """To be called while the server is down."""
        assert not self._running.running
        shutil.rmtree(self._directory / "data")

    def close(self) -> None:
        self.kill()
        self._call(self._stack.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)
        self._loop.close()

    @property
    def _running(self) -> Member:
        assert self._member is not None
        return self._member

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)
