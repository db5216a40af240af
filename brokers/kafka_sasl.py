"""How Kafka is shown user and password: SASL PLAIN (RFC 4616) and SCRAM (RFC 5802), as steps without I/O.

PLAIN tells the server the password. SCRAM proves that both sides know it and tells it to nobody, not even on a
connection without TLS.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Generator
from typing import Final

from core.endpoints import Sasl
from core.errors import EntryRefused

LEAST_ITERATIONS: Final = 4096
MOST_ITERATIONS: Final = 2**17
"""A server could hold up the event loop by asking for more; Kafka itself allows 16 384."""

_HASHES: Final = {"scram-sha-256": "sha256", "scram-sha-512": "sha512"}
_NO_BINDING: Final = "n,,"

Exchange = Generator[bytes, bytes, None]
"""Yields what is to be sent, is sent the answer to it, and ends when the server has been convinced. Raises EntryRefused
where the server does not convince this side."""


def exchange(mechanism: Sasl, user: str, password: str) -> Exchange:
    return plain(user, password) if mechanism == "plain" else scram(_HASHES[mechanism], user, password)


def plain(user: str, password: str) -> Exchange:
    yield f"\0{user}\0{password}".encode()


def scram(
    hash_name: str, user: str, password: str, new_nonce: Callable[[], str] = lambda: secrets.token_hex(16)
) -> Exchange:
    """Without channel binding, which Kafka does not have."""
    nonce = new_nonce()
    first = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
    server_first = (yield (_NO_BINDING + first).encode()).decode("utf-8", "replace")
    told = _attributes(server_first)
    whole_nonce, salt, iterations = told.get("r", ""), _decoded(told.get("s", "")), told.get("i", "")
    if not whole_nonce.startswith(nonce) or len(whole_nonce) == len(nonce):
        raise EntryRefused("the server's part of SCRAM is not an answer to ours")
    if not (iterations.isdecimal() and LEAST_ITERATIONS <= int(iterations) <= MOST_ITERATIONS):
        raise EntryRefused(
            f"the server asks for {iterations or 'no'} iterations of SCRAM: {LEAST_ITERATIONS} to "
            f"{MOST_ITERATIONS} are taken"
        )
    salted = hashlib.pbkdf2_hmac(hash_name, password.encode(), salt, int(iterations))
    without_proof = f"c={base64.b64encode(_NO_BINDING.encode()).decode()},r={whole_nonce}"
    signed = ",".join((first, server_first, without_proof)).encode()
    client_key = _hmac(hash_name, salted, b"Client Key")
    signature = _hmac(hash_name, hashlib.new(hash_name, client_key).digest(), signed)
    proof = bytes(ours ^ theirs for ours, theirs in zip(client_key, signature, strict=True))
    final = yield f"{without_proof},p={base64.b64encode(proof).decode()}".encode()
    expected = _hmac(hash_name, _hmac(hash_name, salted, b"Server Key"), signed)
    if not hmac.compare_digest(expected, _decoded(_attributes(final.decode("utf-8", "replace")).get("v", ""))):
        raise EntryRefused("the server does not know the password that it asked for: it may be another's")


def _attributes(message: str) -> dict[str, str]:
    """Of `a=...,b=...`."""
    return {name: value for name, _, value in (part.partition("=") for part in message.split(","))}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _hmac(hash_name: str, key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hash_name)
