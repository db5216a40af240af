"""Who reads which partition: what the members of a group tell each other through Kafka, and how its leader decides.

A partition of which a member holds messages stays with it: nobody else may get them. One that another should have is
to be *drained*: its holder takes nothing further from it, and joins again as soon as it holds nothing of it any more.
So no rebalance waits for an acknowledgement, and none hands a message to two members.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from aiokafka.protocol.group import MemberAssignment, ProtocolMetadata  # type: ignore[import-untyped]

PROTOCOL: Final = "fanrate-1"
"""The name of this way to share. Members with another cannot join the same group."""

_integers = msgspec.json.Decoder(list[int])


@dataclass(frozen=True, slots=True)
class Share:
    """What one member reads; what it must drain is none of `partitions`."""

    partitions: Sequence[int]
    draining: Sequence[int] = ()


def encode_claim(topic: str, held: Collection[int]) -> bytes:
    """What a member says when it joins: of which partitions it holds messages."""
    claim: bytes = ProtocolMetadata(0, [topic], msgspec.json.encode(sorted(held))).encode()
    return claim


def decode_claim(data: bytes) -> list[int]:
    return _integers.decode(ProtocolMetadata.decode(data).user_data)


def encode_share(topic: str, share: Share) -> bytes:
    """What a member is given, in the form that Kafka's own tools read."""
    read = [(topic, [*share.partitions, *share.draining])]
    encoded: bytes = MemberAssignment(0, read, msgspec.json.encode(share.draining)).encode()
    return encoded


def decode_share(data: bytes) -> Share:
    if not data:
        return Share([])
    assignment = MemberAssignment.decode(data)
    draining = _integers.decode(assignment.user_data)
    read = [number for _, numbers in assignment.assignment for number in numbers]
    return Share([number for number in read if number not in draining], draining)


def shares(partitions: int, claims: Mapping[str, Collection[int]]) -> dict[str, Share]:
    """Member -> share, from member -> claim: as even as can be, and with as little as possible to drain."""
    holders: dict[int, str] = {}
    for member in sorted(claims):
        for number in claims[member]:
            if number < partitions:
                holders.setdefault(number, member)
    owned = _kept(partitions, sorted(claims), holders)
    kept = {number for numbers in owned.values() for number in numbers}
    for number in range(partitions):
        if number not in kept:
            min(owned.values(), key=len).append(number)
    return {
        member: Share(
            sorted(number for number in owned[member] if holders.get(number, member) == member),
            sorted(number for number, holder in holders.items() if holder == member and number not in owned[member]),
        )
        for member in owned
    }


def _kept(partitions: int, members: Sequence[str], holders: Mapping[int, str]) -> dict[str, list[int]]:
    """What each member may keep of what it holds: an even share, and some of them one more where that leaves a rest."""
    even, more = divmod(partitions, len(members))
    owned: dict[str, list[int]] = {}
    for member in members:
        held = sorted(number for number, holder in holders.items() if holder == member)
        extra = 1 if more and len(held) > even else 0
        more -= extra
        owned[member] = held[: even + extra]
    return owned
