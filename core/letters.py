"""Dead letters: what is kept of a message that could not be counted, and its encoding (docs/wire.md).

Where dead letters go and how they come back is the consumer's business (`process/`).
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Final, Literal

import msgspec

from core.errors import MalformedBatch

GROUP: Final = "redrive"
"""The consumer group of every dead-letter topic."""

Reason = Literal["malformed", "expired", "refused"]


def dead_topic(topic: str) -> str:
    """Where the dead letters of `topic` go."""
    return f"{topic}_dead"


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that was not counted, as it was or, with `cut`, the part of it that fits the broker."""

    reason: Reason
    error: str
    topic: str
    at: float
    """When it was given up, Unix seconds."""
    length_bytes: int
    sha256: str
    text: str | None = None
    base64: str | None = None
    cut: bool = False

    def body(self) -> bytes:
        """The message, byte for byte, up to where it was cut."""
        if self.text is not None:
            return self.text.encode()
        return b64decode(self.base64 or "")


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(DeadLetter)


def bury(body: bytes, topic: str, reason: Reason, error: str, *, max_message_bytes: int) -> bytes:
    """The encoded dead letter of `body`, at most `max_message_bytes` long: longer ones are cut."""
    at = time.time()
    whole = _letter(body, topic, reason, error, at, len(body))
    if len(whole) <= max_message_bytes:
        return whole
    room_bytes = max_message_bytes - len(_letter(body, topic, reason, error, at, 0))
    return _letter(body, topic, reason, error, at, max(0, room_bytes // 4 * 3))


def unearth(encoded: bytes) -> DeadLetter:
    """The dead letter in `encoded`; raises MalformedBatch."""
    try:
        return _decoder.decode(encoded)
    except msgspec.MsgspecError as exc:
        raise MalformedBatch(f"not a dead letter: {exc}") from exc


def _letter(body: bytes, topic: str, reason: Reason, error: str, at: float, kept_bytes: int) -> bytes:
    kept = body[:kept_bytes]
    text, base64 = _readable(kept) if kept_bytes == len(body) else (None, b64encode(kept).decode())
    return _encoder.encode(
        DeadLetter(
            reason=reason,
            error=error[:400],
            topic=topic,
            at=at,
            length_bytes=len(body),
            sha256=sha256(body).hexdigest(),
            text=text,
            base64=base64,
            cut=kept_bytes < len(body),
        )
    )


def _readable(body: bytes) -> tuple[str | None, str | None]:
    try:
        return body.decode(), None
    except UnicodeDecodeError:
        return None, b64encode(body).decode()
