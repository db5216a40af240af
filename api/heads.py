"""What the hot route understands of a request: its first line and its header fields, or nothing.

It is a narrow reader in front of a broad one. Whatever is unusual, ambiguous or wrong is left to aiohttp, to be
answered as if there were no hot route; so nothing is taken here that aiohttp would refuse, or would frame in another
way.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import httptools

from api.parsing import SIMPLE, matched_rate
from core.rates import Rate, RateRange

MAX_HEAD_BYTES: Final = 8000
"""Of all fields together, and of a head that is not whole yet: below the 8190 that aiohttp takes of one line."""
MAX_FIELDS: Final = 100
MAX_FORM_BYTES: Final = 2048
"""Twice what the longest subject takes with all of it percent-encoded, and its rate."""

FIRST_LINE: Final = re.compile(rb"POST (%b|/rate(?:\?[!\"$-~]{0,4000})?) (?=HTTP/1\.[01]\r\n)" % SIMPLE.encode("ascii"))
"""Its groups are the target and, if that is of the commonest form, those of SIMPLE."""
_PART_OF_LINE: Final = re.compile(rb"POST /rate(?:\?[!\"$-~]{0,4000})?(?: [HTP/1.0\r]{0,9})?")
_BEGINNING: Final = b"POST /rate"
_LINE: Final = rb"(?:[\t -~]+\r\n(?![\t ]))"
"""ASCII text, which does not go on in the next line."""
_PLAIN: Final = re.compile(_LINE + rb"+\r\n")
_BEGUN: Final = re.compile(_LINE + rb"*[\t -~]*\r?")
_FORM: Final = re.compile(rb"application/x-www-form-urlencoded(?:; ?charset=utf-8)?", re.IGNORECASE)
_KEY: Final = re.compile(rb"\r\n[Ii]dempotency-[Kk]ey:[\t ]*([!-~]{1,255})[\t ]*(?=\r\n)")
ONCE: Final = frozenset(
    b"connection content-length content-location content-range content-type etag host idempotency-key max-forwards "
    b"server user-agent".split()
)
"""Fields of which aiohttp takes one, or which say more than one thing if they come twice."""
_FOREIGN: Final = frozenset(
    b"content-encoding expect http2-settings proxy-connection sec-websocket-key1 transfer-encoding upgrade".split()
)
"""What changes how a request is to be read, or answered."""
_TELLING: Final = ONCE | _FOREIGN
_MOST_KNOWN: Final = 512
_LONGEST_KNOWN_BYTES: Final = 1024


class Head(NamedTuple):
    """What counts of a request's header fields."""

    minor: int
    """Of HTTP/1."""
    keep_alive: bool
    key: str | None
    """Idempotency-Key, as it was sent."""
    form_bytes: int
    """How long the form is that follows; 0 for no body."""


def line_rate(line: re.Match[bytes], within: RateRange) -> Rate | None:
    """The rate of a first line; None if its target is not of the commonest form, or wrong in a way that `form_rate`
    will tell."""
    _, digits, subject = line.groups()
    if digits is None:
        return None
    return matched_rate(digits, subject.decode("ascii") if subject else None, within)


def query_of(line: re.Match[bytes]) -> str:
    """What is behind the question mark of a first line's target; nothing without one."""
    return line[1].partition(b"?")[2].decode("ascii")


def may_become_rate(data: bytes) -> bool:
    """Whether more bytes may make a `POST /rate` of `data`, in which the end of a head has not come yet."""
    if len(data) <= len(_BEGINNING):
        return _BEGINNING.startswith(data)
    if b"\n" not in data:
        return _PART_OF_LINE.fullmatch(data) is not None
    if len(data) >= MAX_HEAD_BYTES or not FIRST_LINE.match(data):
        return False
    return _BEGUN.fullmatch(data) is not None


class Heads:
    """Reads heads. Those of one client, and of many, are mostly the same: what they mean is remembered."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def read(self, fields: bytes) -> Head | None:
        """`fields` are the rest of a head, from its `HTTP/1.` to the empty line; None leaves the request to aiohttp."""
        return self._known.get(fields) or self._read_new(fields)

    def _read_new(self, fields: bytes) -> Head | None:
        """A key is another each time: it is taken out, and the rest may be known."""
        if key := _KEY.search(fields):
            rest = self._read_and_remember(fields[: key.start()] + fields[key.end() :])
            if rest is None or rest.key is not None:
                return None
            return Head(rest.minor, rest.keep_alive, key[1].decode("ascii"), rest.form_bytes)
        return self._read_and_remember(fields)

    def _read_and_remember(self, fields: bytes) -> Head | None:
        if known := self._known.get(fields):
            return known
        head = read_head(fields)
        if head is not None and len(fields) <= _LONGEST_KNOWN_BYTES:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[fields] = head
        return head


def read_head(fields: bytes) -> Head | None:
    """The same, by httptools."""
    if len(fields) > MAX_HEAD_BYTES or not _PLAIN.fullmatch(fields):
        return None
    found = _Found()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(b"POST / " + fields)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    named = found.telling
    if not found.complete or found.twice or found.count > MAX_FIELDS or not _FOREIGN.isdisjoint(named):
        return None
    if b"host" not in named:
        return None
    length = named.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > len(str(MAX_FORM_BYTES)) or int(length) > MAX_FORM_BYTES:
        return None
    if int(length) and not _FORM.fullmatch(named.get(b"content-type", b"")):
        return None
    minor = int(parser.get_http_version()[-1])
    kept = named.get(b"connection", b"keep-alive" if minor else b"close").lower()
    if kept not in (b"keep-alive", b"close"):
        return None
    key = named.get(b"idempotency-key")
    return Head(
        minor=minor,
        keep_alive=kept == b"keep-alive",
        key=None if key is None else key.decode("ascii"),
        form_bytes=int(length),
    )


class _Found:
    """What httptools calls while it reads."""

    __slots__ = ("complete", "count", "telling", "twice")

    def __init__(self) -> None:
        self.count = 0
        self.telling: dict[bytes, bytes] = {}
        self.twice = False
        """Whether a field that tells something came more than once."""
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1
        name = name.lower()
        if name in _TELLING:
            self.twice = self.twice or name in self.telling
            self.telling[name] = value.strip(b"\t ")

    def on_headers_complete(self) -> None:
        self.complete = True
