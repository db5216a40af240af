import asyncio
import io
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import aiohttp
import pytest

from core.http import IDLE_TIMEOUT_S, MAX_BODY_BYTES
from core.settings import Publishing
from stack import parts
from stack.configuration import Balancer, local_site, nginx_configuration, render
from stack.parts import Part
from stack.ports import HOST, free_port
from stack.programs import find
from stack.supervisor import Stack
from tests.servers import needs

BALANCERS: tuple[Balancer, ...] = get_args(Balancer)


def test_a_line_is_repeated_for_each_item_of_a_list():
    template = "keep {{ one }}\n  server {{ servers }} {{ one }};\n"
    assert render(template, {"one": "1", "servers": ["a", "b"]}) == "keep 1\n  server a 1;\n  server b 1;\n"


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError):
        render("{{ nonsense }}", {})


@pytest.mark.parametrize("balancer", BALANCERS)
def test_nginx_takes_the_file(balancer: Balancer, tmp_path: Path):
    needs("nginx")
    path = tmp_path / "nginx.conf"
    path.write_text(nginx_configuration(balancer, local_site(free_port(), [free_port(), free_port()], tmp_path)))
    command = [find("nginx"), "-t", "-p", tmp_path, "-e", "stderr", "-c", path]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "[warn]" not in tried.stderr


@pytest.mark.parametrize(
    ("balancer", "choice"), [("nginx-random", "random two least_conn"), ("nginx-hash", "hash $connection")]
)
def test_tuned_but_for_the_choice(balancer: Balancer, choice: str, tmp_path: Path):
    site = local_site(8080, [8081, 8082], tmp_path)
    tuned, chosen = (nginx_configuration(name, site) for name in ("nginx-tuned", balancer))
    assert tuned.replace("        least_conn;\n", f"        {choice};\n") == chosen != tuned


def test_nginx_outwaits_the_api_and_lets_go_first(tmp_path: Path):
    text = nginx_configuration("nginx-tuned", local_site(8080, [8081], tmp_path))
    longest_s = next(each.le for each in Publishing.model_fields["confirm_timeout_s"].metadata if hasattr(each, "le"))
    assert _seconds(text, "proxy_read_timeout") > longest_s
    upstream = text[text.index("upstream api") : text.index("map ")]
    assert _seconds(upstream, "keepalive_timeout") < IDLE_TIMEOUT_S
    assert f"client_max_body_size {MAX_BODY_BYTES};" in text


def _seconds(text: str, directive: str) -> float:
    return float(text.split(f" {directive} ")[1].split("s;")[0])


@asynccontextmanager
async def replica(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """The port of an upstream that gives each connection one answer to its request's head; none if that is empty."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = answer(await reader.readuntil(b"\r\n\r\n"))
        writer.write(said)
        if not said:
            await over.wait()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, HOST, port):
        yield port
        over.set()


def echo(head: bytes) -> bytes:
    """A 200 whose content is the request's own head."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(head), head)


def silence(head: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("balancer", "version"),
    [("nginx-plain", "1.0"), ("nginx-tuned", "1.1"), ("nginx-random", "1.1"), ("nginx-hash", "1.1")],
)
async def test_forwards_and_tells_where_a_request_came_from(balancer: Balancer, version: str, tmp_path: Path):
    needs("nginx")
    async with replica(echo) as port, Stack(tmp_path) as stack, aiohttp.ClientSession() as client:
        nginx = await stack.start(parts.nginx(tmp_path, upstream_ports=[port], balancer=balancer))
        async with client.get(f"{nginx.url}/rates/film-42", headers={"X-Forwarded-For": "10.9.8.7"}) as response:
            lines = (await response.text()).split("\r\n")
    assert lines[0] == f"GET /rates/film-42 HTTP/{version}"
    assert [line for line in lines if line.startswith("X-Forwarded-For")] == [f"X-Forwarded-For: {HOST}"]


def named(name: bytes) -> Callable[[bytes], bytes]:
    """A 200 whose content is `name`."""
    return lambda head: b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name)


async def test_hash_keeps_a_connection_with_one_replica_while_that_lives(tmp_path: Path):
    needs("nginx")
    async with AsyncExitStack() as running:
        one = await running.enter_async_context(replica(named(b"one")))
        two = await running.enter_async_context(AsyncExitStack())
        ports = [one, await two.enter_async_context(replica(named(b"two")))]
        stack = await running.enter_async_context(Stack(tmp_path))
        nginx = await stack.start(parts.nginx(tmp_path, upstream_ports=ports, balancer="nginx-hash"))
        clients = [
            await running.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)))
            for _ in range(24)
        ]

        async def asked_thrice(client: aiohttp.ClientSession) -> set[str]:
            answers = set()
            for _ in range(3):
                async with client.get(f"{nginx.url}/rates/film-42") as response:
                    assert response.status == 200
                    answers.add(await response.text())
            return answers

        places = [await asked_thrice(client) for client in clients]
        assert {len(place) for place in places} == {1}
        assert set().union(*places) == {"one", "two"}
        await two.aclose()
        assert [await asked_thrice(client) for client in clients] == [{"one"}] * len(clients)


def impatient(part: Part) -> Part:
    """nginx that waits a tenth of a second for an answer."""
    ((path, text),) = part.files.items()
    text = text.replace("proxy_read_timeout 65s;", "").replace("proxy_pass ", "proxy_read_timeout 100ms; proxy_pass ")
    return replace(part, files={path: text})


async def endless() -> AsyncIterator[bytes]:
    """A body of unknown length, that turns out to be too large."""
    for _ in range(MAX_BODY_BYTES // 65536 + 1):
        yield b" " * 65536


@pytest.mark.parametrize("balancer", BALANCERS)
async def test_its_own_errors_are_problem_documents(balancer: Balancer, tmp_path: Path):
    needs("nginx")
    async with replica(silence) as port, Stack(tmp_path) as stack, aiohttp.ClientSession() as client:
        slow = await stack.start(impatient(parts.nginx(tmp_path, upstream_ports=[port], balancer=balancer)))
        away = await stack.start(parts.nginx(tmp_path, upstream_ports=[free_port()], balancer=balancer, name="away"))
        for request, status, kind in (
            (client.post(f"{away.url}/rate"), 502, "no-replica"),
            (client.post(f"{slow.url}/rate"), 504, "no-replica"),
            (client.post(f"{slow.url}/rates", data=io.BytesIO(b" " * (MAX_BODY_BYTES + 1))), 413, "body-too-large"),
            (client.post(f"{slow.url}/rates", data=endless()), 413, "body-too-large"),
        ):
            async with request as response:
                assert response.status == status
                assert response.content_type == "application/problem+json"
                document = await response.json()
            assert document["status"] == status
            assert document["type"] == f"urn:fanrate:problem:{kind}"


async def test_metrics_are_not_forwarded(tmp_path: Path):
    needs("nginx")
    async with replica(echo) as port, Stack(tmp_path) as stack, aiohttp.ClientSession() as client:
        nginx = await stack.start(parts.nginx(tmp_path, upstream_ports=[port]))
        async with client.get(f"{nginx.url}/metrics") as response:
            assert response.status == 404
            assert (await response.json())["type"] == "urn:fanrate:problem:no-such-page"


@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize("status", [b"413 Request Entity Too Large", b"503 Service Unavailable"])
async def test_a_replicas_own_refusal_is_passed_on_as_it_is(balancer: Balancer, status: bytes, tmp_path: Path):
    needs("nginx")
    body = b'{"type":"urn:fanrate:problem:broker-full"}'
    head = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n" % status
    said = b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
    async with replica(lambda _: said) as port, Stack(tmp_path) as stack, aiohttp.ClientSession() as client:
        nginx = await stack.start(parts.nginx(tmp_path, upstream_ports=[port], balancer=balancer))
        async with client.post(f"{nginx.url}/rate?rate=5") as response:
            assert (response.status, response.headers["Retry-After"]) == (int(status[:3]), "1")
            assert await response.read() == body
