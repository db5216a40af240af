import asyncio
import io
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from core.http import IDLE_TIMEOUT_S, MAX_BODY_BYTES
from core.settings import Publishing
from stack import parts
from stack.configuration import nginx_configuration, render
from stack.ports import free_port
from stack.programs import find
from stack.supervisor import Stack
from tests.servers import needs

BALANCERS: list[parts.Balancer] = ["nginx-plain", "nginx-tuned"]


def test_a_line_is_repeated_for_each_item_of_a_list():
    template = "keep {{ one }}\n  server {{ servers }} {{ one }};\n"
    assert render(template, {"one": "1", "servers": ["a", "b"]}) == "keep 1\n  server a 1;\n  server b 1;\n"


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError):
        render("{{ nonsense }}", {})


@pytest.mark.parametrize("balancer", BALANCERS)
def test_nginx_takes_the_file(balancer: str, tmp_path: Path):
    needs("nginx")
    path = tmp_path / "nginx.conf"
    path.write_text(nginx_configuration(balancer, free_port(), [free_port(), free_port()], tmp_path))
    command = [find("nginx"), "-t", "-p", tmp_path, "-e", "stderr", "-c", path]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "[warn]" not in tried.stderr


def test_nginx_outwaits_the_api_and_lets_go_first(tmp_path: Path):
    text = nginx_configuration("nginx-tuned", 8080, [8081], tmp_path)
    longest_s = next(each.le for each in Publishing.model_fields["confirm_timeout_s"].metadata if hasattr(each, "le"))
    assert _seconds(text, "proxy_read_timeout") > longest_s
    upstream = text[text.index("upstream api") : text.index("map ")]
    assert _seconds(upstream, "keepalive_timeout") < IDLE_TIMEOUT_S
    assert f"client_max_body_size {MAX_BODY_BYTES};" in text


def _seconds(text: str, directive: str) -> float:
    return float(text.split(f" {directive} ")[1].split("s;")[0])


@pytest.fixture
async def replica() -> AsyncIterator[int]:
    """The port of an upstream that answers every request with its request line and then closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(line)}\r\n\r\n"
        writer.write(head.encode() + line)
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield port


@pytest.mark.parametrize(("balancer", "version"), [("nginx-plain", "1.0"), ("nginx-tuned", "1.1")])
async def test_forwards(balancer: parts.Balancer, version: str, replica: int, tmp_path: Path):
    needs("nginx")
    async with Stack(tmp_path) as stack, aiohttp.ClientSession() as client:
        nginx = await stack.start(parts.nginx(tmp_path, upstream_ports=[replica], balancer=balancer))
        async with client.get(f"{nginx.url}/rates/film-42") as response:
            assert await response.text() == f"GET /rates/film-42 HTTP/{version}"


async def test_tuned_answers_with_problem_documents_of_its_own(replica: int, tmp_path: Path):
    needs("nginx")
    async with Stack(tmp_path) as stack, aiohttp.ClientSession() as client:
        nginx = await stack.start(parts.nginx(tmp_path, upstream_ports=[replica]))
        away = await stack.start(parts.nginx(tmp_path, upstream_ports=[free_port()], name="away"))
        for url, status, kind in (
            (f"{nginx.url}/metrics", 404, "no-such-page"),
            (f"{away.url}/rates", 502, "no-replica"),
        ):
            async with client.get(url) as response:
                assert response.status == status
                assert response.content_type == "application/problem+json"
                document = await response.json()
            assert document["status"] == status
            assert document["type"] == f"urn:fanrate:problem:{kind}"
        async with client.post(f"{nginx.url}/rates", data=io.BytesIO(b" " * (MAX_BODY_BYTES + 1))) as response:
            assert response.status == 413
            assert (await response.json())["type"] == "urn:fanrate:problem:body-too-large"
