"""How the store in Redis connects: redis-py's pool, over connections that come in by a `Door`."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import hiredis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from core.doors import Door
from core.endpoints import Address, Endpoint, address_text

DEFAULT_PORT: Final = 6379
ANSWER_TIMEOUT_S: Final = 5.0
"""How long one call may take; a fold takes milliseconds."""
CONNECT_TIMEOUT_S: Final = 2.0
HANDSHAKE_S: Final = 0.8
"""Less than the patience of those who ask after the store's health: what TLS fails of must reach them."""

_TLS_ALERT: Final = r'got "\x15"'
"""What hiredis says of an answer that is TLS."""


_ENDED: Final = "closed by server"
"""What redis-py says of a connection that ended."""


class _Credentials(CredentialProvider):
    """Asked at each connect, so that the password is read anew."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._endpoint.password()
        return (self._endpoint.user, password) if self._endpoint.user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


class _Connection(redis.asyncio.Connection):
    """Packs commands in C, as redis-py's synchronous client does: a fold has tens of thousands of arguments."""

    def __init__(self, *, door: Door, **options: Any) -> None:
        self._door = door
        super().__init__(**options)

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        return [hiredis.pack_command((*name.split(), *rest))]

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect and log in. Raises OSError and what redis-py does; nothing is left of a connection that failed."""
        if self.is_connected:
            return
        address = self.host, self.port
        with self._door.knocking(address):
            try:
                await super().connect_check_health(check_health, retry_socket_connect)
            except BaseException as exc:
                await self.disconnect(nowait=True)
                raise self._in_our_words(address, exc) from None

    def _in_our_words(self, address: Address, error: BaseException) -> BaseException:
        """What redis-py makes of an error of `_connect` tells less than that itself."""
        if isinstance(error, exceptions.AuthenticationError):
            said = str(error) if self._door.endpoint.has_password else "it lets nobody in without"
            return self._door.login_refused(address, said)
        if isinstance(error, exceptions.InvalidResponse) and _TLS_ALERT in str(error):
            return self._door.tls_wanted(address)
        if not isinstance(error, exceptions.RedisError):
            return error
        cause = error.__context__
        if isinstance(cause, ConnectionResetError) or _ENDED in str(error):
            return self._door.cut_off(address)
        return cause if isinstance(cause, OSError) and str(cause) else error

    async def _connect(self) -> None:
        reader = asyncio.StreamReader()
        async with asyncio.timeout(self.socket_connect_timeout):
            transport, protocol = await self._door.connect(
                lambda: asyncio.StreamReaderProtocol(reader), (self.host, self.port)
            )
        self._reader = reader
        self._writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())


def clients(endpoint: Endpoint) -> dict[str, redis.asyncio.Redis]:
    """One for each host, by its address, with a pool of connections; none repeats a command by itself. Raises
    SettingsError unless `endpoint` is redis://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/DATABASE]."""
    endpoint = endpoint.with_port(DEFAULT_PORT).plain(path=True)
    door = Door(endpoint, handshake_s=HANDSHAKE_S)
    return {address_text(address): redis.asyncio.Redis.from_pool(_pool(door, address)) for address in endpoint.hosts}


def _pool(door: Door, address: Address) -> redis.asyncio.ConnectionPool:
    endpoint = door.endpoint
    host, port = address
    return redis.asyncio.ConnectionPool(
        connection_class=_Connection,
        door=door,
        host=host,
        port=port,
        db=endpoint.database(),
        credential_provider=_Credentials(endpoint) if endpoint.has_password else None,
        decode_responses=True,
        socket_timeout=ANSWER_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        client_name="fanrate",
    )
