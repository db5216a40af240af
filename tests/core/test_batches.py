"""The wire encoding: what goes in comes out, and whatever else comes is told apart."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.batches import ENVELOPE_BYTES, KEY_BYTES, VERSION, Batch, Key, decode, encode, rate_bytes
from core.errors import MalformedBatch, NewerBatch
from core.rates import SUBJECT_PATTERN

PRODUCER = "0123456789abcdef" * 2

subjects = st.from_regex(SUBJECT_PATTERN, fullmatch=True)
rates = st.lists(st.tuples(subjects, st.integers(-(10**9), 10**9)), min_size=1, max_size=40)


def batch(**changes: object) -> Batch:
    whole = Batch(
        version=VERSION, shard=0, producer=PRODUCER, sequence=3, opened=9, at=1.5, rates=[("a", 1), ("b", 2), ("a", 3)]
    )
    return msgspec.structs.replace(whole, **changes)


@given(rates, st.integers(0, 2**52), st.floats(0, 2**40))
def test_a_batch_survives_the_wire(given_rates: list[tuple[str, int]], sequence: int, at: float) -> None:
    sent = batch(rates=given_rates, sequence=sequence, at=at, keys=[Key("f" * 32, 0, 1)])
    assert decode(encode(sent)) == sent


@given(rates)
def test_the_size_is_never_above_its_estimate(given_rates: list[tuple[str, int]]) -> None:
    largest = batch(sequence=2**52, opened=2**52, shard=2**52, at=2**40 - 0.0001, rates=given_rates)
    largest = msgspec.structs.replace(largest, keys=[Key("f" * 32, 2**52, 2**52)] * 3)
    assert len(encode(largest)) <= ENVELOPE_BYTES + sum(map(rate_bytes, given_rates)) + 3 * KEY_BYTES + 3 * 32


def test_the_wire_is_what_docs_say() -> None:
    """docs/wire.md shows this very line."""
    assert encode(batch(keys=[Key("f" * 32, 1, 2)])) == (
        b'{"version":1,"shard":0,"producer":"0123456789abcdef0123456789abcdef","sequence":3,"opened":9,"at":1.5,'
        b'"rates":[["a",1],["b",2],["a",3]],"keys":[["ffffffffffffffffffffffffffffffff",1,2]]}'
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff",
        b"null",
        b"[1]",
        b"{}",
        b"[" * 100_000,
        b'{"version":0}',
        encode(batch(rates=[])),
        encode(batch(rates=[("a/b", 1)])),
        encode(batch(rates=[("a\n", 1)])),
        encode(batch(rates=[("", 1)])),
        encode(batch(rates=[("a" * 129, 1)])),
        encode(batch(rates=[("a", 10**9 + 1)])),
        encode(batch(sequence=-1)),
        encode(batch(producer="short")),
        encode(batch(at=-1.0)),
        encode(batch(keys=[Key("f" * 32, 2, 2)])),
        encode(batch(keys=[Key("f" * 32, 0, 2), Key("e" * 32, 1, 1)])),
        encode(batch(keys=[Key("f" * 32, 0, 0)])),
        encode(batch()).replace(b"1]", b"true]", 1),
        encode(batch()).replace(b"1]", b"1.5]", 1),
        encode(batch())[:-1],
    ],
)
def test_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBatch):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [b'{"version":2}', encode(batch(version=2)), b'{"version":7,"rates":"another form"}'],
)
def test_a_newer_version_is_not_malformed(body: bytes) -> None:
    with pytest.raises(NewerBatch):
        decode(body)


def test_unknown_fields_are_ignored() -> None:
    """A field more is no new version: older consumers must go on."""
    assert decode(encode(batch())[:-1] + b',"region":"north"}') == batch()
