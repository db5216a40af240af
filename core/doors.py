"""The way in to a server: TCP, TLS where it was asked for, and patience with one that does not let us in.

Whatever a connection fails of that a setting or a certificate is at fault for becomes an EntryRefused with one clear
line. Such a server is asked again at growing intervals, so that many replicas with an old password are no flood of
log-ins; one that is merely away is tried as often as before, to be found soon.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from core.endpoints import Address, Endpoint, address_text
from core.errors import EntryRefused

HANDSHAKE_S: Final = 1.5
"""How long a server may take for its part of TLS."""
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 4.0
LONGEST_UNSURE_PAUSE_S: Final = 1.0
"""Where it may as well be that the server was not there."""
_SPREAD: Final = 0.25
"""By how much of itself a pause is longer or shorter, so that replicas do not ask all at once."""

_EXPIRED: Final = {9: "is not valid yet", 10: "has expired"}
_OTHER_NAME: Final = {62, 63, 64}
"""Codes of OpenSSL, `X509_V_ERR_...`."""
_NOT_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
_WANTS_OURS: Final = "CERTIFICATE_REQUIRED"
_ALERT: Final = b"\x15\x03"
"""How an answer begins that is TLS' way to say no."""

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


class Door:
    """The way in to the hosts of one endpoint, shared by all connections of one adapter."""

    def __init__(self, endpoint: Endpoint, *, handshake_s: float = HANDSHAKE_S) -> None:
        self.endpoint = endpoint
        self._handshake_s = handshake_s
        self._turns = itertools.count(random.randrange(len(endpoint.hosts)))  # noqa: S311
        self._refusals: dict[Address, _Refusals] = {}

    def __str__(self) -> str:
        return str(self.endpoint)

    def next_host(self) -> Address:
        """Each host in its turn."""
        return self.endpoint.hosts[next(self._turns) % len(self.endpoint.hosts)]

    @contextmanager
    def knocking(self, address: Address) -> Iterator[None]:
        """Around one try to connect and log in. Raises EntryRefused: what the server last refused with as long as it is
        too early to ask again, and for whatever of TLS fails."""
        refusals = self._refusals.setdefault(address, _Refusals())
        refusals.check()
        try:
            yield
        except ssl.SSLError as exc:
            refusal = self._of_tls(address, exc)
            refusals.note(refusal)
            raise refusal from exc
        except EntryRefused as exc:
            refusals.note(exc)
            raise
        except Exception:
            self._refusals.pop(address, None)
            raise
        else:
            self._refusals.pop(address, None)

    async def connect(self, make: Callable[[], _P], address: Address) -> tuple[asyncio.Transport, _P]:
        """A connection as the endpoint asks for it; within `knocking`. Raises OSError, TimeoutError and what is to
        become an EntryRefused."""
        loop = asyncio.get_running_loop()
        host, port = address
        context = self.endpoint.ssl_context()
        try:
            if context is None:
                plain, protocol = await loop.create_connection(make, host, port)
                return plain, protocol
            bare, _ = await loop.create_connection(asyncio.Protocol, host, port)
        except OSError as exc:
            raise ConnectionError(f"{address_text(address)}: {exc.strerror or exc}") from exc
        return await self._upgrade(bare, make(), context, address)

    async def _upgrade(
        self, bare: asyncio.Transport, protocol: _P, context: ssl.SSLContext, address: Address
    ) -> tuple[asyncio.Transport, _P]:
        """`protocol` on TLS over `bare`."""
        host, _ = address
        try:
            async with asyncio.timeout(self._handshake_s):
                transport = await asyncio.get_running_loop().start_tls(bare, protocol, context, server_hostname=host)
        except ssl.SSLError:
            bare.abort()
            raise
        except TimeoutError as exc:
            bare.abort()
            asked = f"TLS, for which {self.endpoint.url_setting} asks"
            raise TimeoutError(f"{address_text(address)} does not answer to {asked}: it hangs, or has none") from exc
        except ConnectionError as exc:
            bare.abort()
            raise self._no_tls(address, "it ended the connection", sure=False) from exc
        except BaseException:
            bare.abort()
            raise
        if transport is None:
            raise self._no_tls(address, "it ended the connection", sure=False)
        protocol.connection_made(transport)
        return transport, protocol

    def login_refused(self, address: Address, said: str, *, sure: bool = True) -> EntryRefused:
        """For a server that did not take user and password, or wants some."""
        access, where = self.endpoint.access, address_text(address)
        said = self.endpoint.without_secrets(said.strip())
        if self.endpoint.has_password:
            names = self.endpoint.credentials
            credentials = f"{' and '.join(names)} {'have' if len(names) > 1 else 'has'} them"
            return EntryRefused(f"{where} refuses user and password, as {credentials}: {said}", sure=sure)
        wanted = f"{access.setting}_USER and {access.setting}_PASSWORD"
        return EntryRefused(f"{where} wants {wanted}: {said}", sure=sure)

    def tls_wanted(self, address: Address) -> EntryRefused:
        """For a server that speaks nothing but TLS, asked without."""
        setting, scheme = self.endpoint.url_setting, self.endpoint.scheme
        return EntryRefused(
            f"{setting} asks for no TLS, which {address_text(address)} wants: {scheme}+tls:// asks for it"
        )

    def cut_off(self, address: Address) -> EntryRefused:
        """For a server that ended a connection without a word."""
        setting, scheme, where = self.endpoint.url_setting, self.endpoint.scheme, address_text(address)
        said = f"{where} ended the connection without a word"
        if self.endpoint.tls:
            said += f": it may want a certificate of ours, which {setting} has no way to show"
        else:
            said += f": it may want TLS, for which {setting} does not ask; {scheme}+tls:// does"
        return EntryRefused(said, sure=False)

    def tls_missing(self, address: Address) -> EntryRefused:
        """For a server that says of itself that it has no TLS."""
        return self._no_tls(address, "it says so")

    def _no_tls(self, address: Address, why: str, *, sure: bool = True) -> EntryRefused:
        setting, where = self.endpoint.url_setting, address_text(address)
        return EntryRefused(f"{setting} asks for TLS, which {where} does not speak: {why}", sure=sure)

    def _of_tls(self, address: Address, error: ssl.SSLError) -> EntryRefused:
        setting, where = self.endpoint.access.setting, address_text(address)
        if not isinstance(error, ssl.SSLCertVerificationError):
            if isinstance(error, ssl.SSLEOFError):
                return self._no_tls(address, "it ended the connection", sure=False)
            if error.reason and _WANTS_OURS in error.reason:
                return EntryRefused(
                    f"{setting}_URL: {where} wants a certificate of ours, and there is no way to show one"
                )
            if error.reason in _NOT_TLS:
                return self._no_tls(address, f"its answer is something else ({error.reason})")
            return EntryRefused(f"{setting}_URL: no TLS 1.2 or newer with {where}: {error.reason or error}")
        if error.verify_code in _EXPIRED:
            return EntryRefused(f"{setting}_URL: the certificate of {where} {_EXPIRED[error.verify_code]}")
        if error.verify_code in _OTHER_NAME:
            return EntryRefused(f"{setting}_URL: the certificate of {where} is another's: {error.verify_message}")
        path = self.endpoint.access.ca_file
        authority = f"authority in {path}" if path else "known authority"
        return EntryRefused(
            f"{setting}_CA_FILE: the certificate of {where} was signed by no {authority}: {error.verify_message}"
        )


class _Refusals:
    """Those of one server, since it last let us in."""

    def __init__(self) -> None:
        self._last = ""
        self._pause_s = FIRST_PAUSE_S
        self._again_at = 0.0

    def check(self) -> None:
        if asyncio.get_running_loop().time() < self._again_at:
            raise EntryRefused(self._last)

    def note(self, refusal: EntryRefused) -> None:
        """Of several tries at once, one counts."""
        self._last = str(refusal)
        if asyncio.get_running_loop().time() < self._again_at:
            return
        longest_s = LONGEST_PAUSE_S if refusal.sure else LONGEST_UNSURE_PAUSE_S
        self._pause_s = min(self._pause_s, longest_s)
        spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311
        self._again_at = asyncio.get_running_loop().time() + self._pause_s * spread
        self._pause_s = min(2 * self._pause_s, longest_s)


def is_tls(answer: bytes) -> bool:
    """Whether bytes that were no answer to the protocol spoken here are TLS."""
    return answer.startswith(_ALERT)
