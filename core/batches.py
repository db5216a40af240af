"""The batch: what one broker message carries, and its encoding. docs/wire.md describes it for other languages."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from core.errors import MalformedBatch, NewerBatch
from core.rates import LARGEST_RATE, SUBJECT_PATTERN, Rate

VERSION: Final = 1

ENVELOPE_BYTES: Final = 256
"""An upper bound of a batch's encoding without its rates and keys."""
KEY_BYTES: Final = 64
"""An upper bound of what one idempotency key adds to the encoding."""


def rate_bytes(rate: Rate) -> int:
    """An upper bound of what one rate adds to the encoding: `["subject",-1000000000],`."""
    return len(rate[0]) + 17


_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**52)]
"""Sums of these stay exact in Lua, whose numbers are doubles."""
_Subject = Annotated[str, msgspec.Meta(pattern=rf"\A{SUBJECT_PATTERN}\Z", max_length=128)]
_Producer = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_Identity = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_BoundedRate = Annotated[int, msgspec.Meta(ge=-LARGEST_RATE, le=LARGEST_RATE)]


class Key(msgspec.Struct, frozen=True, array_like=True):
    """`count` rates from index `first` on are counted only if `identity` was not counted before."""

    identity: _Identity
    first: _Natural
    count: _Natural


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rates of one lane that left together. Its identity, for ever, is `(producer, sequence)`.

    `opened` is the producer's running total of rates taken in, this batch included; `at` is the sealing time in Unix
    seconds by the producer's clock.
    """

    version: Annotated[int, msgspec.Meta(ge=1)]
    shard: _Natural
    producer: _Producer
    sequence: _Natural
    opened: _Natural
    at: Annotated[float, msgspec.Meta(ge=0, le=2**40)]
    rates: list[tuple[_Subject, _BoundedRate]]
    keys: list[Key] = []


class _Envelope(msgspec.Struct):
    version: Annotated[int, msgspec.Meta(ge=1)]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Batch)
_envelope = msgspec.json.Decoder(_Envelope)


def encode(batch: Batch) -> bytes:
    """The batch as one JSON object, UTF-8, without white space."""
    return _encoder.encode(batch)


def decode(body: bytes) -> Batch:
    """The batch in `body`; raises MalformedBatch or NewerBatch."""
    try:
        batch = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        _refuse_newer(body)
        raise MalformedBatch(str(exc)) from exc
    if batch.version != VERSION:
        raise NewerBatch(f"version {batch.version}, this program reads {VERSION}")
    if not batch.rates:
        raise MalformedBatch("a batch of no rates")
    _check_keys(batch)
    return batch


def _refuse_newer(body: bytes) -> None:
    try:
        version = _envelope.decode(body).version
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return
    if version > VERSION:
        raise NewerBatch(f"version {version}, this program reads {VERSION}")


def _check_keys(batch: Batch) -> None:
    end = 0
    for key in batch.keys:
        if key.count == 0 or key.first < end or key.first + key.count > len(batch.rates):
            raise MalformedBatch(f"key {key.identity} spans rates that another key has or that do not exist")
        end = key.first + key.count
