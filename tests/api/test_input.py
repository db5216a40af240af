"""What the API takes, and what it refuses: with a status, a problem document, and nothing counted."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.api.conftest import StartService, counted, ready

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}

GOOD_RATES: dict[str, tuple[str, bytes | None, dict[str, str], tuple[str, int]]] = {
    "query": ("/rate?rate=5", None, {}, ("default", 5)),
    "query with subject": ("/rate?rate=5&subject=film-42", None, {}, ("film-42", 5)),
    "query the other way round": ("/rate?subject=film-42&rate=100", None, {}, ("film-42", 100)),
    "percent-encoded": ("/rate?rate=%35&subject=film%2D42", None, {}, ("film-42", 5)),
    "leading zeros": ("/rate?rate=007", None, {}, ("default", 7)),
    "all kinds of characters": ("/rate?rate=1&subject=A.b_c:d-9", None, {}, ("A.b_c:d-9", 1)),
    "longest subject": (f"/rate?rate=1&subject={'x' * 128}", None, {}, ("x" * 128, 1)),
    "form": ("/rate", b"rate=5&subject=film", FORM, ("film", 5)),
    "form with charset": (
        "/rate",
        b"rate=5",
        {"Content-Type": FORM["Content-Type"] + "; charset=utf-8"},
        ("default", 5),
    ),
    "json": ("/rate", b'{"rate": 5, "subject": "film"}', JSON, ("film", 5)),
    "rate in the body, subject in the query": ("/rate?subject=film", b"rate=0", FORM, ("film", 0)),
    "empty body": ("/rate?rate=3", b"", JSON, ("default", 3)),
}


@pytest.mark.parametrize("name", GOOD_RATES)
async def test_good_rate(client: aiohttp.ClientSession, name: str) -> None:
    target, body, headers, (subject, rate) = GOOD_RATES[name]
    async with client.post(_raw(client, target), data=body, headers=headers) as response:
        assert (response.status, await response.read()) == (200, b"")
    await counted(client, 1)
    summary = await (await client.get(f"/rates/{subject}")).json()
    assert summary["distribution"] == {str(rate): 1}


def _raw(client: aiohttp.ClientSession, target: str) -> URL:
    """`target` as it is, for yarl not to mend."""
    return URL(str(client._base_url).rstrip("/") + target, encoded=True)


LONG = "9" * 400
BAD_RATES: dict[str, tuple[str, bytes | None, dict[str, str]]] = {
    "missing": ("/rate", None, {}),
    "subject alone": ("/rate?subject=film", None, {}),
    "empty": ("/rate?rate=", None, {}),
    "letters": ("/rate?rate=abc", None, {}),
    "fraction": ("/rate?rate=1.5", None, {}),
    "exponent": ("/rate?rate=1e3", None, {}),
    "plus": ("/rate?rate=%2B5", None, {}),
    "a space": ("/rate?rate=+5", None, {}),
    "underscore": ("/rate?rate=5_0", None, {}),
    "arabic digits": ("/rate?rate=%D9%A5", None, {}),
    "fullwidth digits": ("/rate?rate=%EF%BC%95", None, {}),
    "hexadecimal": ("/rate?rate=0x5", None, {}),
    "newline": ("/rate?rate=5%0A", None, {}),
    "above": ("/rate?rate=101", None, {}),
    "below": ("/rate?rate=-1", None, {}),
    "400 digits": (f"/rate?rate={LONG}", None, {}),
    "twice": ("/rate?rate=5&rate=5", None, {}),
    "query and form": ("/rate?rate=5", b"rate=5", FORM),
    "query and json": ("/rate?rate=5", b'{"rate":5}', JSON),
    "subject twice": ("/rate?rate=5&subject=a&subject=b", None, {}),
    "subject in both": ("/rate?rate=5&subject=a", b"subject=a", FORM),
    "unknown field": ("/rate?rate=5&subjct=film", None, {}),
    "subject empty": ("/rate?rate=5&subject=", None, {}),
    "subject too long": (f"/rate?rate=5&subject={'x' * 129}", None, {}),
    "subject with slash": ("/rate?rate=5&subject=a/b", None, {}),
    "subject with newline": ("/rate?rate=5&subject=a%0A", None, {}),
    "subject with NUL": ("/rate?rate=5&subject=a%00b", None, {}),
    "subject with emoji": ("/rate?rate=5&subject=%F0%9F%98%80", None, {}),
    "subject of dots": ("/rate?rate=5&subject=..", None, {}),
    "subject with star": ("/rate?rate=5&subject=*", None, {}),
    "not UTF-8": ("/rate?rate=5&subject=%ff", None, {}),
    "semicolon": ("/rate?rate=5;subject=film", None, {}),
    "no value": ("/rate?rate", None, {}),
    "form not UTF-8": ("/rate", b"rate=5&subject=\xff", FORM),
    "broken json": ("/rate", b'{"rate":5', JSON),
    "json with more": ("/rate", b'{"rate":5}}', JSON),
    "json array": ("/rate", b"[5]", JSON),
    "json number": ("/rate", b"5", JSON),
    "json string rate": ("/rate", b'{"rate":"5"}', JSON),
    "json true": ("/rate", b'{"rate":true}', JSON),
    "json null": ("/rate", b'{"rate":null}', JSON),
    "json fraction": ("/rate", b'{"rate":5.0}', JSON),
    "json exponent": ("/rate", b'{"rate":5e0}', JSON),
    "json NaN": ("/rate", b'{"rate":NaN}', JSON),
    "json Infinity": ("/rate", b'{"rate":Infinity}', JSON),
    "json 400 digits": ("/rate", f'{{"rate":{LONG}}}'.encode(), JSON),
    "json 5000 digits": ("/rate", f'{{"rate":{"9" * 5000}}}'.encode(), JSON),
    "json duplicate": ("/rate", b'{"rate":5,"rate":5}', JSON),
    "json unknown field": ("/rate", b'{"rate":5,"film":"x"}', JSON),
    "json subject number": ("/rate", b'{"rate":5,"subject":1}', JSON),
    "json nested": ("/rate", b'{"rate":' + b"[" * 50_000 + b"]" * 50_000 + b"}", JSON),
    "json nested subject": ("/rate", b'{"rate":5,"subject":{"a":1}}', JSON),
    "json lone surrogate": ("/rate", b'{"rate":5,"subject":"\\ud800"}', JSON),
    "json not UTF-8": ("/rate", b'{"rate":5,"subject":"\xff"}', JSON),
}


@pytest.mark.parametrize("name", BAD_RATES)
async def test_bad_rate(client: aiohttp.ClientSession, name: str) -> None:
    target, body, headers = BAD_RATES[name]
    async with client.post(_raw(client, target), data=body, headers=headers) as response:
        problem = await _problem(response, 400)
    assert problem["type"] == "urn:fanrate:problem:invalid-rate"
    assert len(problem["detail"]) < 300
    await counted(client, 0)


BAD_LISTS: dict[str, tuple[bytes, dict[str, str], str]] = {
    "empty json": (b"", JSON, "JSON"),
    "object": (b'{"rate":5}', JSON, "array"),
    "string": (b'["5"]', JSON, "index 0"),
    "true": (b"[5, true]", JSON, "index 1"),
    "null": (b"[null]", JSON, "index 0"),
    "fraction": (b"[5, 6, 1.5]", JSON, "index 2"),
    "nested": (b"[[5]]", JSON, "index 0"),
    "out of range": (b"[101]", JSON, "index 0"),
    "no rate": (b'[{"subject":"a"}]', JSON, "index 0"),
    "duplicate": (b'[{"rate":5,"rate":6}]', JSON, "index 0"),
    "unknown field": (b'[{"rate":5,"x":6}]', JSON, "index 0"),
    "deep": (b"[" * 60_000, JSON, "nested"),
    "trailing": (b"[5]]", JSON, "JSON"),
    "NaN": (b"[NaN]", JSON, "NaN"),
    "empty ndjson": (b"", NDJSON, "empty"),
    "blank line": (b"5\n\n5\n", NDJSON, "line 2"),
    "broken line": (b'{"rate":5}\n{"rate":5\n', NDJSON, "line 2"),
    "ndjson array": (b"5\n[5]\n", NDJSON, "line 2"),
    "ndjson deep": (b"5\n" + b"[" * 60_000, NDJSON, "line 2"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
async def test_bad_list(client: aiohttp.ClientSession, name: str) -> None:
    body, headers, named = BAD_LISTS[name]
    async with client.post("/rates", data=body, headers=headers) as response:
        problem = await _problem(response, 400)
    assert named in problem["detail"]
    await counted(client, 0)


async def test_one_bad_line_among_a_thousand_counts_none(client: aiohttp.ClientSession) -> None:
    lines = [json.dumps({"rate": number % 101, "subject": f"film-{number}"}) for number in range(1000)]
    lines[616] = '{"rate": 700}'
    async with client.post("/rates", data="\n".join(lines).encode(), headers=NDJSON) as response:
        problem = await _problem(response, 400)
    assert problem["line"] == 617
    await counted(client, 0)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'[5, {"rate": 6}, {"subject": "film", "rate": 7}]', JSON),
        (b'5\n{"rate": 6}\r\n{"subject": "film", "rate": 7}', NDJSON),
        (b'5\n{"rate": 6}\n{"subject": "film", "rate": 7}\n', {"Content-Type": "application/jsonl"}),
    ],
)
async def test_good_lists(client: aiohttp.ClientSession, body: bytes, headers: dict[str, str]) -> None:
    async with client.post("/rates", data=body, headers=headers) as response:
        assert (response.status, await response.json()) == (200, {"accepted": 3})
    totals = await counted(client, 3)
    assert totals["distribution"] == {"5": 1, "6": 1, "7": 1}


async def test_an_empty_list_is_accepted(client: aiohttp.ClientSession) -> None:
    async with client.post("/rates", data=b"[]", headers=JSON) as response:
        assert await response.json() == {"accepted": 0}


async def test_a_list_beyond_max_rates_is_refused_whole(client: aiohttp.ClientSession) -> None:
    async with client.post("/rates", data=b"[" + b"5," * 10_000 + b"5]", headers=JSON) as response:
        await _problem(response, 413)
    async with client.post("/rates", data=b"[" + b"5," * 9_999 + b"5]", headers=JSON) as response:
        assert await response.json() == {"accepted": 10_000}
    await counted(client, 10_000)


async def test_a_list_beyond_max_batch_bytes_is_refused_whole(start: StartService) -> None:
    service = await start(max_batch_bytes=2048)
    async with aiohttp.ClientSession(service.url) as client:
        await ready(client)
        rates = [{"rate": 5, "subject": "x" * 128}] * 20
        async with client.post("/rates", json=rates) as response:
            await _problem(response, 413)
        async with client.post("/rates", json=rates[:10]) as response:
            assert response.status == 200
        await counted(client, 10)


async def test_a_body_over_the_limit(client: aiohttp.ClientSession) -> None:
    async with client.post("/rates", data=io.BytesIO(b" " * (1024 * 1024 + 1)), headers=JSON) as response:
        await _problem(response, 413)
    async with client.post("/rates", data=_endless(), headers=JSON) as response:
        await _problem(response, 413)
    await counted(client, 0)


async def _endless() -> Any:
    for _ in range(40):
        yield b" " * 65536


@pytest.mark.parametrize("target", ["/rate", "/rates"])
@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "nonsense"])
async def test_unknown_content_type(client: aiohttp.ClientSession, target: str, kind: str) -> None:
    async with client.post(target, data=b"rate=5", headers={"Content-Type": kind}) as response:
        problem = await _problem(response, 415)
    assert "application/json" in problem["detail"]


@pytest.mark.parametrize("target", ["/nothing", "/rate/", "/rates/a/b", "/rates/", "//rate", "/RATE", "/%00"])
async def test_unknown_path(client: aiohttp.ClientSession, target: str) -> None:
    async with client.get(_raw(client, target)) as response:
        await _problem(response, 404)


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/rate", "POST"),
        ("PUT", "/rate", "POST"),
        ("DELETE", "/rates", "GET, HEAD, POST"),
        ("POST", "/opened", "GET, HEAD"),
        ("PATCH", "/rates/film", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
    ],
)
async def test_method_not_allowed(client: aiohttp.ClientSession, method: str, target: str, allowed: str) -> None:
    async with client.request(method, target) as response:
        await _problem(response, 405)
        assert response.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "target",
    [
        "/rates/..%2Fetc",
        "/rates/%F0%9F%98%80",
        "/rates/*",
        "/subjects?limit=0",
        "/subjects?limit=1001",
        "/subjects?limit=x",
        "/subjects?after=%2F",
        "/subjects?limit=1&limit=2",
        "/subjects?limits=1",
        "/top?n=0",
        "/top?by=sum",
        "/top?by=",
        "/rates?x=1",
        "/opened?x=1",
    ],
)
async def test_bad_query(client: aiohttp.ClientSession, target: str) -> None:
    async with client.get(_raw(client, target)) as response:
        await _problem(response, 400)


@pytest.mark.parametrize("keys", [[""], ["a b"], ["x" * 256], ["a", "b"], ["\xe9"]])
async def test_bad_idempotency_key(client: aiohttp.ClientSession, keys: list[str]) -> None:
    headers = [("Idempotency-Key", key) for key in keys]
    async with client.post("/rate?rate=5", headers=headers) as response:
        await _problem(response, 400)
    await counted(client, 0)


async def _problem(response: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    assert (response.status, response.content_type) == (status, "application/problem+json")
    document: dict[str, Any] = json.loads(await response.read())
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document
