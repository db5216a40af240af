"""The steps of SASL, by the examples of the standards."""

from __future__ import annotations

import pytest

from brokers.kafka_sasl import LEAST_ITERATIONS, MOST_ITERATIONS, exchange, scram
from core.errors import EntryRefused

NONCE = "rOprNGfwEbeRWgbNEkqO"
FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
PROOF = b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
"""RFC 7677, section 3."""


def test_plain() -> None:
    assert list(exchange("plain", "user", "pencil")) == [b"\0user\0pencil"]


def test_scram_as_in_the_standard() -> None:
    steps = scram("sha256", "user", "pencil", lambda: NONCE)
    assert next(steps) == f"n,,n=user,r={NONCE}".encode()
    assert steps.send(FIRST) == b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," + PROOF
    with pytest.raises(StopIteration):
        steps.send(FINAL)


def test_a_name_with_the_signs_of_the_protocol() -> None:
    assert next(scram("sha512", "a=b,c", "pencil", lambda: NONCE)) == f"n,,n=a=3Db=2Cc,r={NONCE}".encode()


def test_a_nonce_is_used_once() -> None:
    assert next(exchange("scram-sha-512", "user", "pencil")) != next(exchange("scram-sha-512", "user", "pencil"))


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"", "not an answer to ours"),
        (b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "not an answer to ours"),
        (b"r=" + NONCE.encode() + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "not an answer to ours"),
        (FIRST.replace(b"4096", str(LEAST_ITERATIONS - 1).encode()), "asks for 4095 iterations"),
        (FIRST.replace(b"4096", str(MOST_ITERATIONS + 1).encode()), "iterations"),
        (FIRST.replace(b"i=4096", b"i=many"), "asks for many iterations"),
    ],
)
def test_a_server_that_asks_for_the_wrong_thing_is_told_nothing_more(first: bytes, said: str) -> None:
    steps = scram("sha256", "user", "pencil", lambda: NONCE)
    next(steps)
    with pytest.raises(EntryRefused, match=said):
        steps.send(first)


@pytest.mark.parametrize(
    "final", [b"", b"v=", b"v=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", b"e=other-error", b"v=\xff"]
)
def test_a_server_that_does_not_know_the_password_is_not_trusted(final: bytes) -> None:
    steps = scram("sha256", "user", "pencil", lambda: NONCE)
    next(steps)
    steps.send(FIRST)
    with pytest.raises(EntryRefused, match="does not know the password"):
        steps.send(final)
