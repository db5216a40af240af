"""The hot route beside aiohttp: the same bytes get the same answers and leave the same counts, whatever they are and
however they are cut."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import api.hot
import core.http
from brokers.memory import MemoryBroker
from core.errors import BrokerFull
from core.lifecycle import Deadline, until
from stack import parts
from stack.embedded import EmbeddedService
from stack.supervisor import Stack
from tests.api.conftest import StartService
from tests.api.test_input import BAD_RATES, GOOD_RATES
from tests.servers import needs

FORM = "application/x-www-form-urlencoded"
MANY = 40
"""Pieces, between which nobody waits."""
STALL_S = 2.0
"""After which a connection that waits for more is cut, here."""


def request(
    target: str = "/rate?rate=5", *fields: str, method: str = "POST", version: str = "1.1", body: bytes = b""
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: x", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def form(body: bytes, *fields: str, target: str = "/rate", content_type: str = FORM) -> bytes:
    return request(target, f"Content-Type: {content_type}", *fields, body=body)


@dataclass(frozen=True)
class Heard:
    """What a client heard on one connection: status line, sorted header lines but Date, and body of each answer."""

    answers: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]
    cut: bool
    """Whether the server ended it before it would have for silence."""


Ask = Callable[[], Awaitable[Sequence[Heard]]]
Counts = Counter[tuple[str, int]]


async def surely(ask: Ask, alike: Callable[[Heard, Heard], bool]) -> Heard:
    """What the hot route says. Asked anew where one heard less, or that it was too slow: where the machine pauses for
    longer than the clocks allow here, one may cut what the other answers."""
    for _ in range(3):
        hot, plain = await ask()
        if alike(hot, plain):
            return hot
        if not _clocks(hot, plain):
            break
    raise AssertionError((hot, plain))


def _clocks(hot: Heard, plain: Heard) -> bool:
    """Whether they may differ by a clock alone, theirs or the broker's."""
    timed = any(b" 408 " in status or b" 503 " in status for heard in (hot, plain) for status, _, _ in heard.answers)
    return timed or len(hot.answers) != len(plain.answers) or hot.cut != plain.cut


def same_until_bad(one: Heard, other: Heard) -> bool:
    """Whether they are the same, at least up to where `one` says that it heard no HTTP."""
    return one == other or same_until(b"bad-http", one, other)


def same_until(kind: bytes, one: Heard, other: Heard) -> bool:
    """Whether `one` ends with a problem of that kind, and they are the same before it."""
    *before, (_, _, last) = one.answers or [(b"", (), b"")]
    return kind in last and tuple(before) == other.answers[: len(before)]


def no_laxer(hot: Heard, plain: Heard) -> bool:
    """Whether they are the same, or where aiohttp heard no HTTP the hot route came to hear none too, or had ended the
    connection at a good request before."""
    if hot == plain:
        return True
    if not same_until_bad(plain, hot) or not hot.answers:
        return False
    status, fields, _ = hot.answers[-1]
    kept = b"Connection: keep-alive" in fields if status.startswith(b"HTTP/1.0") else b"Connection: close" not in fields
    return hot.answers[-1] == plain.answers[-1] or not kept


class Pair:
    """Two services, one with the hot route and one without."""

    def __init__(self, hot: EmbeddedService, plain: EmbeddedService) -> None:
        self.hot = hot
        self.plain = plain

    async def both(self, requests: Sequence[bytes], rng: random.Random, pieces: int = 1) -> Heard:
        """What the hot route answers to `requests` as one stream, cut anywhere. aiohttp, which gets them one after the
        other, cut at the same places, must say the same."""
        return await surely(self.ways(requests, rng, pieces), lambda hot, plain: hot == plain)

    async def alike(self, requests: Sequence[bytes], rng: random.Random, pieces: int) -> bool:
        """The same of any requests, and whether all was so at once. What aiohttp gets in one piece with bad HTTP, or
        behind a request that closes the connection, it drops, good requests too: also where it got the connection
        handed over. And where the length of a body was too great, the next request is part of it in a stream alone."""
        told: list[bool] = []

        def compare(hot: Heard, plain: Heard) -> bool:
            told.append(hot == plain)
            return same_until_bad(hot, plain) or same_until(b"body-stalled", plain, hot)

        await surely(self.ways(requests, rng, pieces), compare)
        return told == [True]

    async def ending(self) -> set[str]:
        """Which of ALL end their connection."""
        heard = await asyncio.gather(*(self.both([data], random.Random(0)) for data in ALL.values()))
        return {name for name, each in zip(ALL, heard, strict=True) if each.cut}

    def ways(self, requests: Sequence[bytes], rng: random.Random, pieces: int) -> Ask:
        stream = b"".join(requests)
        places = places_in(stream, rng, pieces)
        starts = [0, *accumulate(map(len, requests))]
        one_by_one = [
            cut(each, [place - start for place in places if start < place < start + len(each)])
            for start, each in zip(starts, requests, strict=False)
        ]
        sent = cut(stream, places)
        return lambda: asyncio.gather(Client(self.hot).send(sent), Client(self.plain).ask(one_by_one))

    async def counted_alike(self, before: Sequence[Counts]) -> None:
        """Both have counted the same since."""
        await self.idle()
        hot, plain = [now - then for now, then in zip(await self.counts(), before, strict=True)]
        assert hot == plain

    async def counts(self) -> list[Counts]:
        """How often each rate of each subject was counted, by both."""
        return [await _counts(service) for service in (self.hot, self.plain)]

    async def idle(self) -> None:
        """All that was taken in is counted."""
        async with asyncio.timeout(5):
            for service in (self.hot, self.plain):
                publisher = service._api._publisher
                await publisher.report(1)
                while publisher._unconfirmed or (await service._store.opened()).opened:
                    await asyncio.sleep(0.01)

    async def settled(self, count: int = 1) -> dict[int, int]:
        """The rates that were counted, by both the same and at least `count`, and how often; nothing is left of any
        connection."""
        http = self.hot._api._http
        assert await until(lambda: not http.fronts and not http.active, 5)
        deadline = Deadline(5)
        while (counted := await self.counts())[0] != counted[1] or counted[0].total() < count:
            assert deadline.left_s, counted
            await asyncio.sleep(0.05)
        rates: Counter[int] = Counter()
        for (_, rate), times in counted[0].items():
            rates[rate] += times
        return dict(rates)


async def _counts(service: EmbeddedService) -> Counts:
    store = service._store
    counts: Counts = Counter()
    for ranked in await store.subjects("", 10_000):
        summary = await store.subject(ranked.subject)
        assert summary is not None
        counts.update({(ranked.subject, rate): times for rate, times in summary.distribution.items()})
    return counts


class Client(asyncio.Protocol):
    """One connection to a service; hears to the end what the server says, also where that closes while this sends."""

    def __init__(self, service: EmbeddedService) -> None:
        host, port = service.url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._received = bytearray()
        self._heard_more = asyncio.Event()
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._heard_more.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended = True
        self._heard_more.set()

    async def send(self, pieces: Sequence[bytes]) -> Heard:
        """All, whatever is answered."""
        async with self._talking() as transport:
            await _write(transport, pieces)
        return self._heard

    async def ask(self, requests: Sequence[Sequence[bytes]]) -> Heard:
        """Each, in its pieces, when the one before was answered."""
        async with self._talking() as transport:
            for number, pieces in enumerate(requests, 1):
                await _write(transport, pieces)
                while not self._ended and len(answers(bytes(self._received))) < number:
                    await self._hear()
        return self._heard

    @asynccontextmanager
    async def _talking(self) -> AsyncIterator[asyncio.Transport]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: self, *self._address)
        try:
            yield transport
            sent_at = loop.time()
            while not self._ended:
                await self._hear()
        finally:
            transport.close()
        self._heard = Heard(tuple(answers(bytes(self._received))), loop.time() - sent_at < STALL_S / 2)

    async def _hear(self) -> None:
        self._heard_more.clear()
        async with asyncio.timeout(10):
            await self._heard_more.wait()


async def _write(transport: asyncio.Transport, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        if transport.is_closing():
            return
        transport.write(piece)
        await asyncio.sleep(0 if len(pieces) > MANY else 0.002)


def answers(heard: bytes) -> list[tuple[bytes, tuple[bytes, ...], bytes]]:
    """Those that are whole."""
    found = []
    while b"\r\n\r\n" in heard:
        head, _, rest = heard.partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        assert sum(field.startswith(b"Date: ") for field in fields) <= 1
        kept = sorted(field for field in fields if not field.startswith(b"Date: "))
        length = next((int(field[16:]) for field in fields if field.startswith(b"Content-Length: ")), 0)
        if len(rest) < length:
            break
        found.append((status, tuple(kept), rest[:length]))
        heard = rest[length:]
    return found


@pytest.fixture
async def pair(start: StartService, monkeypatch: pytest.MonkeyPatch) -> Pair:
    for name in ("HEADER_TIMEOUT_S", "BODY_TIMEOUT_S", "IDLE_TIMEOUT_S"):
        monkeypatch.setattr(core.http, name, STALL_S)
    monkeypatch.setattr(core.http, "LINGERING_S", 0.05)
    return await paired(start)


async def paired(start: StartService, **options: Any) -> Pair:
    both = Pair(await start(hot_route=True, **options), await start(hot_route=False, **options))
    for service in (both.hot, both.plain):
        assert await until(lambda service=service: service._api._publisher.check().ok, 5)  # type: ignore[misc]
    return both


LAST = request("/rate?rate=9", "Connection: close")

RECOGNISED: dict[str, bytes] = {
    "query": request(),
    "with subject": request("/rate?rate=5&subject=film-42"),
    "subject first": request("/rate?subject=film-42&rate=6"),
    "encoded": request("/rate?rate=%37&subject=film%2D42"),
    "old": request(version="1.0"),
    "old and kept": request("/rate?rate=5", "Connection: keep-alive", version="1.0"),
    "closed": request("/rate?rate=5", "Connection: close"),
    "empty body": request("/rate?rate=5", "Content-Length: 0"),
    "empty body of a type": request("/rate?rate=5", "Content-Type: text/plain", "Content-Length: 0"),
    "key": request("/rate?rate=5", "Idempotency-Key: once"),
    "key again": request("/rate?rate=5", "idempotency-key: once"),
    "key, other rate": request("/rate?rate=6", "Idempotency-Key: once"),
    "form": form(b"rate=5&subject=film-42"),
    "form with charset": form(b"rate=5", content_type=FORM + "; charset=UTF-8"),
    "encoded form": form(b"subject=a%3Ab&rate=%35"),
    "form with a key": form(b"rate=5", "Idempotency-Key: form"),
    "no space after a colon": b"POST /rate?rate=5 HTTP/1.1\r\nHost:x\r\nAccept:*/*\r\n\r\n",
    "spaces around a value": b"POST /rate?rate=5 HTTP/1.1\r\nHost:  x \t\r\n\r\n",
    "many fields": request("/rate?rate=5", *(f"X-{n}: {n}" for n in range(60))),
    "a field twice": request("/rate?rate=5", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"),
    "rate too large": request("/rate?rate=101"),
    "rate of 400 digits": request("/rate?rate=" + "9" * 400),
    "no rate": request("/rate"),
    "empty query": request("/rate?"),
    "rate twice": request("/rate?rate=5&rate=5"),
    "unknown field": request("/rate?rate=5&subjct=a"),
    "bad subject": request("/rate?rate=5&subject=-"),
    "not encoded well": request("/rate?rate=5&subject=%zz"),
    "not UTF-8": request("/rate?rate=5&subject=%ff"),
    "no form": form(b"rate"),
    "form not UTF-8": form(b"rate=5&subject=\xff"),
    "form of nothing known": form(b"a=b&c=d"),
    "bad key": request("/rate?rate=5", "Idempotency-Key: a b"),
    "empty key": request("/rate?rate=5", "Idempotency-Key:"),
    "long key": request("/rate?rate=5", "Idempotency-Key: " + "k" * 256),
}
"""What the hot route answers by itself, well or not."""

LEFT: dict[str, bytes] = {
    "another call": request("/healthz", method="GET"),
    "the page": request("/", method="GET"),
    "no page": request("/rated?rate=5"),
    "other method": request("/rate?rate=5", method="PUT"),
    "absolute target": request("http://x/rate?rate=5"),
    "fragment": request("/rate?rate=5#a"),
    "many rates": request("/rates", "Content-Type: application/json", body=b"[1,2,3]"),
    "json": request("/rate", "Content-Type: application/json", body=b'{"rate":5}'),
    "bad json": request("/rate", "Content-Type: application/json", body=b'{"rate":'),
    "query and form": form(b"subject=a", target="/rate?rate=5"),
    "query and form, twice": form(b"rate=5", target="/rate?rate=5"),
    "form without a type": request("/rate", body=b"rate=5"),
    "form of another type": form(b"rate=5", content_type="text/plain"),
    "odd charset": form(b"rate=5", content_type=FORM + "; charset=latin-1"),
    "large form": form(b"rate=5&subject=" + b"x" * 3000),
    "far too large form": request("/rate", f"Content-Type: {FORM}", "Content-Length: 2000000"),
    "chunked": request("/rate", f"Content-Type: {FORM}", "Transfer-Encoding: chunked") + b"6\r\nrate=5\r\n0\r\n\r\n",
    "bad chunks": request("/rate", f"Content-Type: {FORM}", "Transfer-Encoding: chunked") + b"6\r\nrate=\r\nx\r\n",
    "compressed": form(b"rate=5", "Content-Encoding: gzip"),
    "key twice": request("/rate?rate=5", "Idempotency-Key: a", "Idempotency-Key: b"),
    "host twice": request("/rate?rate=5", "Host: y"),
    "not ASCII": request("/rate?rate=5", "X-Name: \xe9"),
    "long field": request("/rate?rate=5", "X-Long: " + "x" * 8150),
    "too long field": request("/rate?rate=5", "X-Long: " + "x" * 9000),
    "fields beyond measure": request("/rate?rate=5", *(f"X-{n}: {n}" for n in range(200))),
    "long query": request("/rate?rate=5&subject=" + "x" * 5000),
    "too long query": request("/rate?rate=5&subject=" + "x" * 9000),
    "kept and closed": request("/rate?rate=5", "Connection: keep-alive, close"),
    "no host": b"POST /rate?rate=5 HTTP/1.1\r\n\r\n",
    "upgrade": request("/rate?rate=5", "Connection: upgrade", "Upgrade: websocket"),
    "upgrade to h2c": request("/rate?rate=5", "Upgrade: h2c", "HTTP2-Settings: AA"),
    "new version": request(version="2.0"),
    "HTTP/1.2": request(version="1.2"),
    "no version": b"POST /rate?rate=5\r\n\r\n",
    "blank line first": b"\r\n" + request(),
    "two spaces": b"POST  /rate?rate=5 HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower case": request(method="post"),
}
"""What it leaves to aiohttp."""

AMBIGUOUS: dict[str, bytes] = {
    "length twice, the same": request("/rate", f"Content-Type: {FORM}", "Content-Length: 6", body=b"rate=5"),
    "length twice, different": request("/rate", f"Content-Type: {FORM}", "Content-Length: 7", body=b"rate=5"),
    "length in a list": request("/rate", f"Content-Type: {FORM}", "Content-Length: 6, 6") + b"rate=5",
    "length and chunks": request("/rate", "Transfer-Encoding: chunked", body=b"6\r\nrate=5\r\n0\r\n\r\n"),
    "chunks and length": request("/rate", "Content-Length: 6", "Transfer-Encoding: chunked") + b"rate=5",
    "chunked twice": request("/rate", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "unknown encoding": request("/rate", "Transfer-Encoding: x", "Content-Length: 6") + b"rate=5",
    "chunked, not last": request("/rate", "Transfer-Encoding: chunked, x") + b"0\r\n\r\n",
    "old and chunked": request("/rate", "Transfer-Encoding: chunked", version="1.0") + b"0\r\n\r\n",
    "length with a sign": request("/rate", "Content-Length: +6") + b"rate=5",
    "negative length": request("/rate", "Content-Length: -6") + b"rate=5",
    "length in hexadecimal": request("/rate", "Content-Length: 0x6") + b"rate=5",
    "length with underscore": request("/rate", "Content-Length: 0_6") + b"rate=5",
    "length of letters": request("/rate", "Content-Length: six") + b"rate=5",
    "empty length": request("/rate", "Content-Length:") + b"rate=5",
    "length with a space": request("/rate", "Content-Length: 6 6") + b"rate=5",
    "huge length": request("/rate", "Content-Length: 99999999999999999999999") + b"rate=5",
    "length of 2**64 + 6": request("/rate", "Content-Length: 18446744073709551622") + b"rate=5",
    "huge chunk": request("/rate", "Transfer-Encoding: chunked") + b"fffffffffffffffff\r\nrate=5\r\n0\r\n\r\n",
    "folded": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    "folded by a tab": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\t6\r\n\r\n",
    "space before the colon": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\nContent-Length : 6\r\n\r\n",
    "space before a name": b"POST /rate?rate=5 HTTP/1.1\r\n Host: x\r\n\r\n",
    "bare LF": b"POST /rate?rate=5 HTTP/1.1\nHost: x\n\n",
    "bare LF in the fields": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\nContent-Length: 6\r\n\r\nrate=5",
    "bare LF at the end": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\n\n",
    "bare CR": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\rContent-Length: 6\r\n\r\n",
    "NUL": b"POST /rate?rate=5 HTTP/1.1\r\nHost: \0x\r\n\r\n",
    "no name": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
    "no colon": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\nAccept x\r\n\r\n",
    "a name with a space": b"POST /rate?rate=5 HTTP/1.1\r\nHost: x\r\nContent Length: 6\r\n\r\n",
}
"""Framed in a way that two readers might read differently."""

SPINE = {
    f"spine: {name}": request(target, *(f"{field}: {value}" for field, value in fields.items()), body=body or b"")
    for name, (target, body, fields, *_) in (GOOD_RATES | BAD_RATES).items()
}
ALL = RECOGNISED | LEFT | AMBIGUOUS | SPINE


def places_in(data: bytes, rng: random.Random, pieces: int) -> list[int]:
    """Where to cut `data` into up to so many pieces."""
    return sorted(rng.sample(range(1, len(data)), min(pieces - 1, len(data) - 1)))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("pieces", [1, 2, 5])
async def test_alone_and_before_another(pair: Pair, pieces: int) -> None:
    rng = random.Random(pieces)
    ending = await pair.ending()
    async with asyncio.TaskGroup() as group:
        for name, data in ALL.items():
            group.create_task(pair.both([data], rng, pieces), name=name)
            if name not in ending:
                group.create_task(pair.both([data, LAST], rng, pieces), name=name)
    await pair.settled()


async def test_byte_by_byte(pair: Pair) -> None:
    async with asyncio.TaskGroup() as group:
        for name in ("with subject", "form", "old", "key", "json", "chunked", "folded", "rate too large"):
            group.create_task(pair.both([ALL[name]], random.Random(name), 10_000), name=name)
    await pair.settled()


@pytest.mark.parametrize("seed", range(4))
async def test_pipelines_of_all_kinds(pair: Pair, seed: int) -> None:
    """What ends a connection stands at the end; and behind what was handed over, nothing that is bad."""
    rng = random.Random(seed)
    ending = await pair.ending()
    kinds = [[kind[name] for name in kind if name not in ending] for kind in (RECOGNISED, LEFT)]
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            weights, last = ([8, 2], LAST) if number % 2 else ([1, 0], ALL[rng.choice(sorted(ending))])
            requests = [rng.choice(kind) for kind in rng.choices(kinds, weights, k=rng.randint(2, 12))]
            group.create_task(pair.both([*requests, last], rng, rng.randint(1, 6)))
    await pair.settled()


async def test_a_pipeline_longer_than_what_is_taken_in_at_once(pair: Pair) -> None:
    requests = [RECOGNISED["query"], RECOGNISED["form"]] * 400 + [LEFT["json"], RECOGNISED["rate too large"]]
    hot, plain = await pair.ways([*requests, LAST], random.Random(0), 7)()
    assert hot.answers == plain.answers
    assert len(hot.answers) == len(requests) + 1
    assert await pair.settled(802) == {5: 801, 9: 1}


async def test_ambiguous_framing_is_refused_and_ends_the_connection(pair: Pair) -> None:
    for name, data in AMBIGUOUS.items():
        heard = await pair.both([data], random.Random(0))
        assert heard.cut, name
        assert len(heard.answers) == 1, name
        assert re.match(rb"HTTP/1\.[01] 4\d\d ", heard.answers[0][0]), (name, heard)
    await pair.both([LAST], random.Random(0))
    assert await pair.settled() == {9: 1}


@pytest.mark.parametrize("options", [{"durability": "relaxed"}, {"dispatch": "topics"}, {"dispatch": "inline"}])
async def test_with_other_settings(options: dict[str, str], start: StartService) -> None:
    pair = await paired(start, **options)
    for name in ("with subject", "form", "key", "rate too large", "json"):
        await pair.both([ALL[name], LAST], random.Random(name), 3)
    assert (await pair.settled(9))[9] == 5


@pytest.mark.parametrize(
    ("error", "kinds"), [(None, ["unconfirmed", "busy"]), (BrokerFull("no room"), ["broker-full", "broker-full"])]
)
async def test_a_broker_that_does_not_keep_up(
    error: BrokerFull | None, kinds: list[str], start: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused in the same words."""

    async def publish(broker: MemoryBroker, topic: str, body: bytes, timeout_s: float) -> None:
        if error is not None:
            raise error
        await asyncio.Event().wait()

    pair = await paired(start, max_unconfirmed=1, max_rates=1, confirm_timeout_s=0.5)
    monkeypatch.setattr(MemoryBroker, "publish", publish)
    heard = await pair.both([ALL["with subject"], LAST], random.Random(0))
    assert [json.loads(body)["type"] for *_, body in heard.answers] == [f"urn:fanrate:problem:{kind}" for kind in kinds]


async def test_hot_connections_are_not_handed_over_for_what_is_recognised(pair: Pair) -> None:
    """Else all of the above would hold of a hot route that knows nothing."""
    handed_over = []

    def note(transport: asyncio.Transport, received: bytes, header_within_s: float) -> None:
        handed_over.append(received)
        transport.close()

    pair.hot._api._http.hand_over = note  # type: ignore[method-assign]
    for name, data in RECOGNISED.items():
        assert (await Client(pair.hot).send([data + LAST])).answers, name
    assert not handed_over
    for name, data in (LEFT | AMBIGUOUS).items():
        await Client(pair.hot).send([data])
        assert handed_over, name
        handed_over.clear()


TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
QUERIES = st.one_of(
    st.builds("rate={}".format, st.integers(-5, 110)),
    st.builds("rate={}&subject={}".format, st.integers(0, 100), st.from_regex(r"[a-z%:._-]{0,9}", fullmatch=True)),
    TEXT,
)
FIELDS = st.one_of(
    st.builds("Idempotency-Key: {}".format, TEXT),
    st.builds("Connection: {}".format, st.sampled_from(["close", "keep-alive", "Keep-Alive, x", "x"])),
    st.builds("Content-Type: {}".format, st.sampled_from([FORM, FORM.upper(), "application/json", "x"])),
    st.builds("Content-Length: {}".format, st.integers(0, 20)),
    st.builds("{}: {}".format, st.from_regex(r"[A-Za-z-]{1,12}", fullmatch=True), TEXT),
)
REQUESTS = st.builds(
    lambda query, fields, version, body: request(query and f"/rate?{query}", *fields, version=version, body=body),
    QUERIES,
    st.lists(FIELDS, max_size=4),
    st.sampled_from(["1.1", "1.1", "1.0"]),
    st.one_of(st.just(b""), st.binary(max_size=30), QUERIES.map(str.encode)),
)
"""Mostly well-formed."""
STREAMS = st.lists(
    st.one_of(REQUESTS, st.sampled_from(list(ALL.values()))),
    min_size=1,
    max_size=6,
)


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=STREAMS, seed=st.integers(0, 2**32), pieces=st.integers(1, 8))
async def test_whatever_is_asked(pair: Pair, requests: list[bytes], seed: int, pieces: int) -> None:
    """Hypothesis' own requests: the same answers and, where nothing was dropped that a key would have to remember, the
    same counts."""
    await pair.idle()
    before = await pair.counts()
    same = await pair.alike([*requests, LAST], random.Random(seed), pieces)
    if same and not any(b"idempotency-key" in each.lower() for each in requests):
        await pair.counted_alike(before)


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=STREAMS, seed=st.integers(0, 2**32), pieces=st.integers(1, 8), damage=st.integers(1, 5))
async def test_whatever_comes(
    pair: Pair, caplog: pytest.LogCaptureFixture, requests: list[bytes], seed: int, pieces: int, damage: int
) -> None:
    """Bytes put in, taken out or changed: no crash, no hang, nothing left; and aiohttp, which gets the same pieces,
    says the same, but for good requests that it drops because they came in one piece with bad ones."""
    rng = random.Random(seed)
    data = bytearray(b"".join(requests) + LAST)
    for _ in range(damage):
        place = rng.randrange(len(data))
        data[place : place + rng.randint(0, 2)] = rng.choice([b"", b"\r", b"\n", b" ", b"\0", rng.randbytes(1)])
    sent = cut(bytes(data), places_in(bytes(data), rng, pieces))
    await surely(lambda: asyncio.gather(Client(pair.hot).send(sent), Client(pair.plain).send(sent)), no_laxer)
    await nothing_left(pair, caplog)


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"P", b"POST /rate", b"POST /rate?rate=5 HTTP/1.1\r\n", request()]),
    noise=st.binary(max_size=300),
    seed=st.integers(0, 2**32),
)
async def test_noise(pair: Pair, caplog: pytest.LogCaptureFixture, head: bytes, noise: bytes, seed: int) -> None:
    """A head ends here: of one that does not, aiohttp says at once that it is bad; the hot route waits for its end."""
    rng = random.Random(seed)
    data = head + noise + b"\r\n\r\n"
    sent = cut(data, places_in(data, rng, rng.randint(1, 8)))
    await surely(lambda: asyncio.gather(Client(pair.hot).send(sent), Client(pair.plain).send(sent)), no_laxer)
    await nothing_left(pair, caplog)


async def nothing_left(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """No connection, no rate without a confirm, and no future or task that nobody asked."""
    http = pair.hot._api._http
    assert http._server is not None
    assert await until(lambda: not http.fronts and not http.active and not http._server.connections, 5)  # type: ignore[union-attr]
    assert await until(lambda: not pair.hot._api._publisher._unconfirmed, 5)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"]


async def test_a_key_counts_once_over_both_routes(pair: Pair) -> None:
    """As a query on the hot route, and as JSON, which is aiohttp's: it is the same rate under the same key."""
    hot = request("/rate?rate=7&subject=film-7", "Idempotency-Key: both")
    plain = form(b'{"rate": 7, "subject": "film-7"}', "Idempotency-Key: both", content_type="application/json")
    for stream in (hot + plain + hot + LAST, plain + hot + LAST):
        heard = await Client(pair.hot).send([stream])
        assert {status for status, _, _ in heard.answers} == {b"HTTP/1.1 200 OK"}
    async with asyncio.timeout(5):
        while (counts := await _counts(pair.hot)).total() < 3:
            await asyncio.sleep(0.01)
    assert counts == {("film-7", 7): 1, ("default", 9): 2}
    assert pair.hot._api._http.handed_over == 2


async def test_a_client_that_goes_away_among_its_answers_is_no_error(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the rest of what it asked for is left to aiohttp."""
    for number in range(20):
        _, writer = await asyncio.open_connection(*Client(pair.hot)._address)
        writer.write(RECOGNISED["rate too large"] * 5 + LEFT["another call"])
        (writer.transport.abort if number % 2 else writer.close)()
    http = pair.hot._api._http
    assert await until(lambda: not http.fronts and not http.active, 5)
    await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_drain_waits_for_a_form_that_is_under_way(start: StartService) -> None:
    service = await start()
    reader, writer = await asyncio.open_connection(*Client(service)._address)
    sent = form(b"rate=5")
    writer.write(sent[:-3])
    assert await until(lambda: bool(service._api._http.active), 5)
    draining = asyncio.create_task(service.drain(8))
    await asyncio.sleep(core.http.LAME_DUCK_S + 0.3)
    writer.write(sent[-3:])
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in answer
    await draining
    assert (await service._store.totals()).distribution == {5: 1}
    writer.close()


async def test_a_client_that_still_sends_hears_that_its_form_came_too_late(
    start: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.http, "BODY_TIMEOUT_S", 0.3)
    service = await start()
    client = Client(service)
    sent = form(b"rate=5&subject=" + b"x" * 100)
    async with client._talking() as transport:
        transport.write(sent[:-50])
        for _ in range(8):
            await asyncio.sleep(0.1)
            transport.write(b"x")
    ((status, fields, body),) = client._heard.answers
    assert status == b"HTTP/1.1 408 Request Timeout"
    assert b"Connection: close" in fields
    assert b"body-stalled" in body


async def test_a_client_that_reads_nothing_is_cut(start: StartService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.http, "IDLE_TIMEOUT_S", 0.5)
    service = await start()
    _, writer = await asyncio.open_connection(*Client(service)._address, limit=1)
    http = service._api._http
    writer.write(RECOGNISED["rate of 400 digits"] * 20_000)
    assert await until(lambda: any(front._choked for front in http.fronts), 5)  # type: ignore[attr-defined]
    assert await until(lambda: not http.fronts and not http.active, 5)
    writer.transport.abort()


async def test_a_client_that_does_not_read_its_last_answers_is_cut(
    start: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few enough to fit what the server holds unsent of a client that reads slowly."""
    monkeypatch.setattr(core.http, "IDLE_TIMEOUT_S", 0.5)
    service = await start()
    http = service._api._http
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, Client(service)._address)
        assert await until(lambda: bool(http.fronts), 5)
        (front,) = http.fronts
        assert isinstance(front, api.hot.HotConnection)
        front._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        client.send(RECOGNISED["rate too large"] * 50 + LAST)
        assert await until(lambda: front._transport.is_closing(), 5)
        assert front._transport.get_write_buffer_size()
        assert not front._choked
        assert await until(lambda: not http.fronts, 5)


async def test_nginx_keeps_hot_connections_for_what_is_hot(
    start: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends JSON does not spend them."""
    needs("nginx")
    taken = []
    take = api.hot.HotConnection._take
    monkeypatch.setattr(api.hot.HotConnection, "_take", lambda *given: (taken.append(given), take(*given)))
    service = await start()
    async with Stack(tmp_path) as stack:
        nginx = await stack.start(parts.nginx(tmp_path, upstream_ports=[Client(service)._address[1]]))
        async with aiohttp.ClientSession(nginx.url) as session:
            for number in range(40):
                given = ({"json": {"rate": 5}}, {"data": {"rate": "5"}}, {"params": {"rate": 5}}, {})[number % 4]
                async with session.request("POST" if given else "GET", "/rate", **given) as response:  # type: ignore[arg-type]
                    assert response.status == (200 if given else 405)
    assert len(taken) == 20
    async with asyncio.timeout(10):
        while (await service._store.totals()).distribution != {5: 30}:
            await asyncio.sleep(0.01)
