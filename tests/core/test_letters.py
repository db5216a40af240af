"""Dead letters keep what they can of a message and say what they could not."""

from __future__ import annotations

from hashlib import sha256

import pytest

from core.errors import MalformedBatch
from core.letters import bury, unearth


@pytest.mark.parametrize("body", [b"", b'{"version":1}', "naïve".encode(), b"\xff\x00\xfe", b"x" * 5000])
def test_what_fits_is_kept_whole(body: bytes) -> None:
    letter = unearth(bury(body, "rates", "malformed", "why", max_message_bytes=2**20))
    assert letter.body() == body
    assert not letter.cut
    assert (letter.topic, letter.reason, letter.error) == ("rates", "malformed", "why")


@pytest.mark.parametrize("body", [b"\xff" * 10_000, b"x" * 10_000, b'"' * 9_000, b"\x01" * 9_999])
def test_what_does_not_fit_is_cut_and_says_so(body: bytes) -> None:
    encoded = bury(body, "rates", "refused", "e" * 1000, max_message_bytes=8_192)
    assert len(encoded) <= 8_192
    letter = unearth(encoded)
    assert letter.cut
    assert body.startswith(letter.body())
    assert len(letter.body()) > 4_000
    assert letter.length_bytes == len(body)
    assert letter.sha256 == sha256(body).hexdigest()


def test_something_else_is_malformed() -> None:
    with pytest.raises(MalformedBatch):
        unearth(b"{}")
