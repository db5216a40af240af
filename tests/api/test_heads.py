"""What the hot route understands of a head, beside aiohttp's own parser, which must understand the same."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_parser import SINGLETON_HEADERS
from aiohttp.web_protocol import RequestPayloadError
from hypothesis import given, settings
from hypothesis import strategies as st

from api.heads import FIRST_LINE, ONCE, Heads, line_rate, may_become_rate, query_of, read_head
from api.parsing import SIMPLE, simple_rate
from core.rates import RateRange

NAMES = [
    "Accept",
    "Authorization",
    "Connection",
    "Content-Length",
    "Content-Location",
    "Content-Range",
    "Content-Type",
    "Cookie",
    "Date",
    "ETag",
    "Expect",
    "Host",
    "Idempotency-Key",
    "Keep-Alive",
    "Max-Forwards",
    "Proxy-Connection",
    "Sec-WebSocket-Key",
    "Server",
    "TE",
    "Trailer",
    "Upgrade-Insecure-Requests",
    "User-Agent",
    "Via",
    "X-A",
]
VALUES = [
    *("", "x", "a ", "a\t", " a", "a b", "a,b", "1;2", "*", "[::1]", "a/b", "a@b", ":", "\x7f"),
    *("close", "keep-alive", "Keep-Alive", "CLOSE", "close ", "upgrade", "trailers"),
    *("0", "6", "00", "06", "6 ", "+6", "6,6", "application/x-www-form-urlencoded"),
    *("application/x-www-form-urlencoded; charset=UTF-8", "application/json"),
]
FIELD = st.builds(
    "{}{}{}\r\n".format,
    st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES).map(str.lower)),
    st.sampled_from([": "] * 6 + [":", ":  ", ":\t", " : ", "; ", ""]),
    st.sampled_from(VALUES),
)
FIELDS = st.builds(
    lambda minor, fields: f"HTTP/1.{minor}\r\n{''.join(fields)}\r\n".encode("latin-1"),
    st.integers(0, 1),
    st.lists(FIELD, max_size=5).flatmap(lambda fields: st.permutations(["Host: x\r\n", *fields])),
)


def damaged(fields: bytes, place: int, byte: int | None) -> bytes:
    at = 8 + place % (len(fields) - 8)
    return fields[:at] + (b"" if byte is None else bytes([byte])) + fields[at + 1 :]


DAMAGED = st.builds(
    damaged,
    FIELDS,
    st.integers(0, 10_000),
    st.one_of(st.none(), st.sampled_from(b"\0\t\n\r :;\x7f\xc8"), st.integers(0, 255)),
)


@settings(max_examples=3000, deadline=None)
@given(fields=st.one_of(FIELDS, DAMAGED))
def test_what_is_understood_is_what_aiohttp_understands(fields: bytes) -> None:
    fields = fields[: fields.find(b"\r\n\r\n") + 4]
    head = Heads().read(fields)
    if head is None:
        return
    stream = b"POST /rate " + fields + b"r" * head.form_bytes
    assert FIRST_LINE.match(stream)
    following = b"POST /next HTTP/1.1\r\nHost: y\r\n\r\n" if head.keep_alive else b""
    messages, upgraded, _ = _parser().feed_data(stream + following)
    assert not upgraded
    assert [message.path for message, _ in messages] == ["/rate", "/next"][: 2 if head.keep_alive else 1]
    message = messages[0][0]
    assert (message.version.minor, message.should_close) == (head.minor, not head.keep_alive)
    assert message.headers.get("Idempotency-Key") == head.key
    assert not message.chunked
    assert not message.compression


WITHIN = RateRange(0, 100)
TARGETS = st.one_of(
    st.from_regex(SIMPLE, fullmatch=True),
    st.builds("{}{}".format, st.from_regex(SIMPLE, fullmatch=True), st.sampled_from(["&", "%20", "&rate=1", "=", "1"])),
    st.from_regex(r"/rate(\?[!-~]{0,40})?", fullmatch=True).filter(lambda target: "#" not in target),
)


@given(target=TARGETS)
def test_a_first_line_has_the_rate_of_its_target(target: str) -> None:
    line = FIRST_LINE.match(f"POST {target} HTTP/1.1\r\n".encode("ascii"))
    assert line is not None
    assert line[1].decode("ascii") == target
    assert line_rate(line, WITHIN) == simple_rate(target, WITHIN)
    assert query_of(line) == target.removeprefix("/rate").removeprefix("?")


def _parser() -> HttpRequestParser:
    """As a connection of a service has it. Its protocol only has to be there."""
    loop = MagicMock()
    protocol = BaseProtocol(loop)
    parser = HttpRequestParser(
        protocol, loop, 2**16, max_line_size=8190, max_field_size=8190, max_headers=128,
        payload_exception=RequestPayloadError, max_msg_queue_size=32,
    )  # fmt: skip
    protocol._parser = parser
    return parser


@given(fields=FIELDS)
def test_what_is_remembered_is_what_was_read(fields: bytes) -> None:
    heads = Heads()
    first = heads.read(fields)
    assert heads.read(fields) == first
    assert first is None or first == read_head(fields)


def test_a_key_is_read_however_often_it_changes() -> None:
    heads = Heads()
    for number in range(1000):
        fields = f"HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {number}\r\nX-Request-Id: {number % 2}\r\n\r\n".encode()
        head = heads.read(fields)
        assert head is not None
        assert head.key == str(number)
    assert len(heads._known) == 2


def test_many_different_heads_are_not_all_remembered() -> None:
    heads = Heads()
    for number in range(5000):
        assert heads.read(f"HTTP/1.1\r\nHost: x\r\nX-Request-Id: {number}\r\n\r\n".encode())
    assert len(heads._known) <= 512


def test_fields_that_aiohttp_takes_once_are_known() -> None:
    assert {name.encode() for name in SINGLETON_HEADERS} - {b"transfer-encoding"} <= ONCE


@pytest.mark.parametrize(
    ("data", "may"),
    [
        (b"P", True),
        (b"POST /rate", True),
        (b"POST /rate?rate=5&subject=a", True),
        (b"POST /rate HTTP/1", True),
        (b"POST /rate HTTP/1.1\r", True),
        (b"POST /rate HTTP/1.1\r\nHost: x\r", True),
        (b"GET", False),
        (b"POST /rates", False),
        (b"POST /rate HTTX", False),
        (b"POST /rate?\xff", False),
        (b"POST /rate HTTP/1.1\nHost: x", False),
        (b"POST /rate HTTP/2.0\r\n", False),
        (b"POST /rate HTTP/1.1\r\nHost: x\r\n folded", False),
        (b"POST /rate HTTP/1.1\r\nX: " + b"x" * 8000, False),
    ],
)
def test_the_beginning_of_a_request(data: bytes, may: bool) -> None:
    assert may_become_rate(data) is may
