"""docs/http.md holds: its examples are run with curl, its tables are compared with the code."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from api.publisher import Publisher
from brokers.memory import MemoryBroker
from core.http import HttpService, Routes
from core.lifecycle import until
from core.settings import EmbeddedSettings
from process.consumer import Consumer
from stack.embedded import EmbeddedService
from store.memory import MemoryStore
from tests.api.conftest import ready
from tests.docs.pages import ROOT, Example, examples, page, table
from tests.servers import needs

ADDRESS = "http://127.0.0.1:8080"
CURL_S = 10.0


@pytest.fixture
async def service() -> AsyncIterator[EmbeddedService]:
    embedded = EmbeddedService(EmbeddedSettings(port=0))
    await embedded.start()
    yield embedded
    await embedded.close()


async def test_every_example_gives_the_answer_shown(service: EmbeddedService) -> None:
    needs("curl", "bash")
    shown = examples(page("http.md"))
    assert len(shown) > 10
    async with aiohttp.ClientSession(service.url) as session:
        await ready(session)
        for example in shown:
            await _all_counted(session)
            _compare(example, await _run(example.command.replace(ADDRESS, service.url)))


def test_every_call_has_an_example() -> None:
    commands = "\n".join(example.command for example in examples(page("http.md")))
    asked = {re.sub(r"\?.*", "", path) for path in re.findall(rf"{ADDRESS}(/[^\s']*)", commands)}
    for path in _paths():
        assert any(each == path or (path.endswith("/") and each.startswith(path)) for each in asked), path


def test_the_problem_kinds_are_those_of_the_code() -> None:
    listed = [row[0] for row in table(page("http.md"), "Problems")]
    assert sorted(listed) == sorted(set(_kinds_of_python()) | set(_kinds_of_nginx()))


async def test_the_metrics_are_those_of_the_code() -> None:
    broker, store, settings = MemoryBroker(), MemoryStore(horizon_s=9, idempotency_s=9), EmbeddedSettings()
    publisher = Publisher(broker, store, settings, topic="rates", groups=["g"], max_rates=1)
    consumer = Consumer(broker, store, topic="rates", oldest_allowed_s=9)
    http = HttpService("127.0.0.1", 0, Routes(exact={}, under={}))
    families = [("api", family) for family in (*publisher.metrics(), *http.metrics())]
    families += [("process", family) for family in consumer.metrics()]
    expected = [
        [f"{family.name}{'_total' if family.type == 'counter' else ''}", family.type, service, family.documentation]
        for service, family in families
    ]
    assert table(page("http.md"), "Metrics") == expected


async def _run(command: str) -> str:
    bash = shutil.which("bash")
    assert bash is not None
    curl = await asyncio.create_subprocess_exec(bash, "-c", command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(CURL_S):
        out, _ = await curl.communicate()
    assert curl.returncode == 0, command
    return out.decode().replace("\r\n", "\n")


def _compare(example: Example, answer: str) -> None:
    """An answer shown with `-i` may leave headers out, but not the status."""
    shown = example.answer
    if re.search(" -[iI] ", example.command):
        head, _, answer = answer.partition("\n\n")
        shown_head, _, shown = shown.partition("\n\n")
        status, *headers = head.splitlines()
        shown_status, *shown_headers = shown_head.splitlines()
        assert status == shown_status, example.command
        assert set(shown_headers) <= set(headers), example.command
    elif answer.startswith("{"):
        assert '"type":"urn:' not in answer, f"{example.command} shows no status and is refused: {answer}"
    assert _without_clock(answer) == _without_clock(shown), example.command


def _without_clock(text: str) -> str:
    """The counts of the minutes become their sum: the page cannot know when it is read."""

    def summed(minutes: re.Match[str]) -> str:
        return f'"minutes":{sum(map(int, re.findall(r"Z.:([0-9]+)", minutes[0])))}'

    return re.sub(r'"minutes":\{[^}]*\}', summed, text)


async def _all_counted(session: aiohttp.ClientSession) -> None:
    for _ in range(300):
        async with session.get("/opened") as response:
            opened = await response.json()
        if opened["opened"] == 0:
            return
        await until(lambda: False, 0.02)
    raise AssertionError(f"not counted in time: {opened}")


def _paths() -> list[str]:
    """The paths in the API's table of routes and in that of health, as they stand in the code."""
    found = []
    for file in ("api/routes.py", "core/health.py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                found += [key.value for key in node.keys if isinstance(key, ast.Constant) and str(key.value)[:1] == "/"]
    assert len(found) >= 10
    return found


def _kinds_of_python() -> Iterator[str]:
    for room in ("api", "core", "process", "stack"):
        for file in (ROOT / room).glob("*.py"):
            yield from _kinds_of(file)


def _kinds_of(file: Path) -> Iterator[str]:
    """The second argument of each Problem: a literal, or the variable `kind` and what is given to that."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="Problem"), args=[_, ast.Constant(value=kind), *_]):
                yield kind
            case ast.Call(func=ast.Name(id="_unavailable"), args=[ast.Constant(value=kind), *_]):
                yield kind
            case ast.Call(func=ast.Name(id="Problem"), args=[_, argument, *_]):
                assert isinstance(argument, ast.Name), ast.dump(argument)
                assert argument.id == "kind"
            case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="kind"), _])], value=ast.Tuple(elts=[value, _])):
                assert isinstance(value, ast.Constant)
                yield value.value
            case ast.Call(func=ast.Name(id="_answer"), args=[_, ast.Constant(value=kind)]):
                yield kind
            case _:
                pass


def _kinds_of_nginx() -> Iterator[str]:
    template = (ROOT / "nginx" / "problem-words.conf.template").read_text(encoding="utf-8")
    kinds = re.search(r"\$problem_kind \{(.*?)\}", template, re.DOTALL)
    assert kinds is not None
    yield from re.findall(r'"([a-z-]+)";', kinds[1])
