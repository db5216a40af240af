"""Which Redis to write to, and how a write is known to be with its replicas.

Of several, the one that says it is the master. They are all asked when one is first needed and again after any call
that failed, so a replica that was promoted is found as soon as the old primary fails: within a call, and without
anything between them and us. Nobody is promoted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio
import structlog
from redis import exceptions
from redis.commands.core import AsyncScript

from core.errors import StoreRefused, StoreUnavailable

log = structlog.get_logger()

ROLE_S: Final = 1.0
"""How long one of several may take to let us in and tell its role, before it counts as away; longer than what TLS takes
to fail, whose cause is to be told."""
WAIT_S: Final = 2.0
"""How long replicas may take to have a write. Below the time for an answer: too few is an answer."""

_REFUSALS: Final = ("REFUSED", "WRONGTYPE", "user_script:")
"""How Redis begins when the data is at fault; anything else it says means not now."""

Client = redis.asyncio.Redis


class Primary:
    """`nodes` are the addresses and clients of one Redis, or of a primary and its replicas."""

    def __init__(self, nodes: Mapping[str, Client]) -> None:
        self._nodes = dict(nodes)
        self._present: Client | None = None
        self._told = ""
        self._looking = asyncio.Lock()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Client]:
        """The primary, for one call, of which driver errors come in the terms of the port."""
        try:
            yield await self._find()
        except StoreUnavailable:
            self.doubt()
            raise
        except exceptions.ResponseError as exc:
            if str(exc).startswith(_REFUSALS):
                raise StoreRefused(str(exc)) from exc
            self.doubt()
            raise StoreUnavailable(str(exc)) from exc
        except (exceptions.RedisError, OSError, TimeoutError) as exc:
            self.doubt()
            raise StoreUnavailable(str(exc) or type(exc).__name__) from exc

    def doubt(self) -> None:
        """Ask all again before the next call."""
        self._present = None

    async def look(self) -> None:
        """Ask all again, while calls go on with the present one. Raises StoreUnavailable."""
        if len(self._nodes) == 1:
            return
        try:
            self._present = self._nodes[await self._ask_all()]
        except StoreUnavailable:
            self.doubt()
            raise

    async def close(self) -> None:
        for client in self._nodes.values():
            await client.aclose()

    async def _find(self) -> Client:
        if len(self._nodes) == 1:
            return next(iter(self._nodes.values()))
        if self._present is None:
            async with self._looking:
                if self._present is None:
                    self._present = self._nodes[await self._ask_all()]
                return self._present
        return self._present

    async def _ask_all(self) -> str:
        """The address of the one master. None is no answer, and two are none either: each would count on its own."""
        roles = dict(zip(self._nodes, await asyncio.gather(*map(_role, self._nodes.values())), strict=True))
        masters = [address for address, role in roles.items() if role == "master"]
        if len(masters) > 1:
            raise StoreUnavailable(
                f"{' and '.join(masters)} both say that they are the primary, and would each count on their own: make "
                "one a replica of the other (REPLICAOF)"
            )
        if not masters:
            told = ", ".join(f"{address} {role}" for address, role in roles.items())
            raise StoreUnavailable(f"no Redis says that it is the primary: {told}")
        if masters[0] != self._told:
            self._told = masters[0]
            log.info("store_primary", store=masters[0])
        return masters[0]


async def replicated(
    client: Client, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any], replicas: int, barrier: str
) -> Any:
    """The answer of `script`, once it and all that was written before it is with so many replicas; raises
    StoreUnavailable if it is not after WAIT_S, though it may be written.

    WAIT asks for what its own connection has written. A script may write nothing, since all was known, though what is
    known was written by another connection and has reached nobody; so there is always a write in between.
    """
    for call in (("EVALSHA", script.sha), ("EVAL", script.script)):
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command(*call, len(keys), *keys, *arguments)
        pipeline.execute_command("INCR", barrier)
        pipeline.execute_command("WAIT", replicas, int(WAIT_S * 1000))
        answer, marked, reached = await answered(pipeline.execute(raise_on_error=False))
        if not isinstance(answer, exceptions.NoScriptError):
            break
    if isinstance(answer, Exception):
        raise answer
    for each in (marked, reached):
        if isinstance(each, Exception):
            raise StoreUnavailable(f"whether replicas have it cannot be told: {each}") from each
    if reached < replicas:
        raise StoreUnavailable(f"what was counted is with {reached} of {replicas} replicas (STORE_REPLICAS)")
    return answer


async def answered(call: Awaitable[Any]) -> Any:
    """Await a call of redis-py, whose types do not tell the asynchronous from the synchronous client."""
    return await call


async def _role(client: Client) -> str:
    """What the server says it is, or why it says nothing."""
    try:
        async with asyncio.timeout(ROLE_S):
            role: str = (await answered(client.role()))[0]
    except TimeoutError as exc:
        return f"cannot be asked: {exc}" if str(exc) else "does not answer"
    except exceptions.NoPermissionError:
        return "does not tell its role to this user, who needs +role"
    except (exceptions.RedisError, OSError) as exc:
        return f"cannot be asked: {exc}"
    return "is a replica" if role == "slave" else role
