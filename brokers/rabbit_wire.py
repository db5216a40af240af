"""AMQP 0-9-1 on the wire: pamqp's frames and, by hand, the few that each message costs.

A frame is a type (1 byte), a channel (2), a size (4), that many bytes and 0xCE. A message is three kinds of them: the
method, a header with the size of the body, and the body in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, cast

from pamqp import frame as pamqp_frame
from pamqp.base import Frame

PROTOCOL: Final = b"AMQP\x00\x00\x09\x01"
METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

CONNECTION_CLOSE: Final = b"\x00\x0a\x00\x32"
CONNECTION_CLOSE_OK: Final = b"\x00\x0a\x00\x33"
CONNECTION_BLOCKED: Final = b"\x00\x0a\x00\x3c"
CONNECTION_UNBLOCKED: Final = b"\x00\x0a\x00\x3d"
CHANNEL_CLOSE: Final = b"\x00\x14\x00\x28"
CHANNEL_CLOSE_OK: Final = b"\x00\x14\x00\x29"
BASIC_CANCEL: Final = b"\x00\x3c\x00\x1e"
BASIC_RETURN: Final = b"\x00\x3c\x00\x32"
BASIC_DELIVER: Final = b"\x00\x3c\x00\x3c"
BASIC_ACK: Final = b"\x00\x3c\x00\x50"
BASIC_NACK: Final = b"\x00\x3c\x00\x78"
"""Class and method: how the payload of a method frame begins."""

_END: Final = 0xCE
_BASIC: Final = 60
_HAS_DELIVERY_MODE: Final = 0x1000
_MULTIPLE: Final = 1
_REQUEUE: Final = 2

_FRAME: Final = Struct(">BHI")
_BODY_SIZE: Final = Struct(">4xQ")
_TAG: Final = Struct(">Q")
_CONFIRM: Final = Struct(">4xQB")
_CONTENT_HEADER: Final = Struct(">BHIHHQHBB")
_SETTLEMENT: Final = Struct(">BHIHHQBB")


class NotAmqp(Exception):
    """Bytes that are no frames."""


class Cutter:
    """Cuts a stream of bytes into frames."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._rest = b""

    def frames(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Type, channel and payload of each frame that `data` completes; raises NotAmqp."""
        buffer = self._rest + data if self._rest else data
        at, available = 0, len(buffer)
        try:
            while available - at > _FRAME.size:
                kind, channel, size = _FRAME.unpack_from(buffer, at)
                if size > self._max_frame_bytes:
                    raise NotAmqp(f"a frame of {size} bytes")
                begin = at + _FRAME.size
                end = begin + size
                if end >= available:
                    break
                if buffer[end] != _END:
                    raise NotAmqp("a frame without its end")
                at = end + 1
                yield kind, channel, buffer[begin:end]
        finally:
            self._rest = buffer[at:]


def encode(channel: int, frame: Frame) -> bytes:
    return pamqp_frame.marshal(frame, channel)


def decode(channel: int, payload: bytes) -> Frame:
    """The method frame with `payload`."""
    raw = _FRAME.pack(METHOD, channel, len(payload)) + payload + bytes([_END])
    return cast(Frame, pamqp_frame.unmarshal(raw)[2])


def body_size(payload: bytes) -> int:
    """Of a header frame, bytes."""
    size: int = _BODY_SIZE.unpack_from(payload)[0]
    return size


def delivery_tag(payload: bytes) -> int:
    """Of Basic.Deliver: class, method, the consumer's tag with its length before it, then the delivery's."""
    tag: int = _TAG.unpack_from(payload, 5 + payload[4])[0]
    return tag


def confirm(payload: bytes) -> tuple[int, bool]:
    """Of Basic.Ack and Basic.Nack: the tag, and whether all below it are meant too."""
    tag, bits = _CONFIRM.unpack_from(payload)
    return tag, bool(bits & _MULTIPLE)


def acknowledgement(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    return _SETTLEMENT.pack(METHOD, channel, 13, _BASIC, 80, tag, _MULTIPLE if multiple else 0, _END)


def requeueing(channel: int, tag: int) -> bytes:
    """Basic.Nack of one delivery, which the queue is to keep."""
    return _SETTLEMENT.pack(METHOD, channel, 13, _BASIC, 120, tag, _REQUEUE, _END)


def content(channel: int, body: bytes, delivery_mode: int, max_frame_bytes: int) -> bytes:
    """What follows a Basic.Publish."""
    parts = [_CONTENT_HEADER.pack(HEADER, channel, 15, _BASIC, 0, len(body), _HAS_DELIVERY_MODE, delivery_mode, _END)]
    most = max_frame_bytes - _FRAME.size - 1
    for at in range(0, len(body), most):
        piece = body[at : at + most]
        parts += (_FRAME.pack(BODY, channel, len(piece)), piece, b"\xce")
    return b"".join(parts)
