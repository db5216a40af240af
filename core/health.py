"""/healthz, /readyz and /metrics: the same three calls at every service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web

from core.answers import json_response
from core.errors import Problem, StoreError
from core.http import Handler, Request
from core.store import Store
from core.telemetry import Exposition

STORE_S: Final = 1.5
"""How long a store may take to say how it is: a health check waits for it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a service depends on: `ok`, or what is wrong with it. Only a `vital` one decides."""

    ok: bool
    detail: str = ""
    vital: bool = True

    def __str__(self) -> str:
        return self.detail or ("ok" if self.ok else "not ok")


Checks = Mapping[str, Check]


async def store_check(store: Store, *, vital: bool) -> Check:
    """Whether `store` answers, soon."""
    try:
        async with asyncio.timeout(STORE_S):
            await store.check()
    except StoreError as exc:
        return Check(False, str(exc), vital)
    except TimeoutError:
        return Check(False, "no answer", vital)
    return Check(True, vital=vital)


def health_routes(
    alive: Callable[[], Checks], ready: Callable[[], Awaitable[Checks]], metrics: Exposition
) -> dict[str, dict[str, Handler]]:
    """The routes of a service that answers `alive` and `ready` by checks, named."""

    async def healthz(request: Request) -> web.Response:
        return _answer(alive(), "not-healthy")

    async def readyz(request: Request) -> web.Response:
        return _answer(await ready(), "not-ready")

    async def metrics_text(request: Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": metrics.content_type})

    return {"/healthz": {"GET": healthz}, "/readyz": {"GET": readyz}, "/metrics": {"GET": metrics_text}}


def _answer(checks: Checks, kind: str) -> web.Response:
    shown = {name: str(check) for name, check in checks.items()}
    failed = [f"{name}: {check}" for name, check in checks.items() if check.vital and not check.ok]
    if not failed:
        return json_response({"status": "ok", "checks": shown})
    raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, kind, "; ".join(failed), members={"checks": shown})
