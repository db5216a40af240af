"""Building peers, and the command that does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers import PEERS, NotBuilt
from bench.peers import __main__ as command
from bench.peers import fastapi
from bench.peers.building import Recipe
from stack.programs import MISSING_PROGRAM, MissingProgram

WRITES = "import sys; open(sys.argv[1] + '/program', 'w').write(sys.argv[2])"


def recipe(source: Path, word: str = "built", script: str = WRITES, tool: str = "true") -> Recipe:
    return Recipe(
        "example",
        "program",
        lambda folder: [sys.executable, "-c", script, str(folder), word],
        {tool: "from somewhere"},
        "a moment",
        [source],
    )


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.write_text("one")
    return source


def test_what_is_built_is_found_until_its_source_or_its_command_is_another(source: Path) -> None:
    example = recipe(source)
    with pytest.raises(NotBuilt, match=r"example is not built; to get it: make peers \(a moment\)"):
        example.find()
    said: list[str] = []
    example.build(said.append)
    assert example.find().read_text() == "built"
    assert len(said) == 1
    assert recipe(source).is_built
    assert not recipe(source, word="other").is_built
    source.write_text("two")
    assert not recipe(source).is_built


def test_a_build_that_fails_tells_its_end_and_leaves_nothing(source: Path) -> None:
    example = recipe(source, script=WRITES + "; sys.exit('no such thing')")
    with pytest.raises(NotBuilt, match="no such thing"):
        example.build(lambda line: None)
    assert not example.is_built
    assert list(example.folder.parent.iterdir()) == []


def test_a_toolchain_that_is_missing_is_a_reason(source: Path) -> None:
    with pytest.raises(NotBuilt, match="example cannot be built without no-such-tool; to get it: from somewhere"):
        recipe(source, tool="no-such-tool").build(lambda line: None)


def test_every_peer_that_is_there_tells_its_versions() -> None:
    for peer in PEERS.values():
        try:
            peer.check()
        except (NotBuilt, MissingProgram):
            assert peer.versions() == {}
        else:
            assert set(peer.versions()) == set(peer.programs)


@pytest.mark.parametrize(
    ("python", "told"),
    [
        ("exit 1", "is not whole"),
        ("echo 'No package metadata for fastapi' >&2; exit 1", "metadata for fastapi"),
        ("", "Expecting|truncated"),
    ],
)
def test_an_environment_that_is_half_made_is_not_there(
    python: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastapi, "ENVIRONMENT", tmp_path)
    peer = PEERS["fastapi-faststream"]
    with pytest.raises(NotBuilt, match=f"there is no Python environment {tmp_path}; to get it: make peers"):
        peer.check()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python"
    program.write_text(f"#!/bin/sh\n{python}\n")
    with pytest.raises(NotBuilt, match="Permission denied"):
        peer.check()
    program.chmod(0o755)
    with pytest.raises(NotBuilt, match=told):
        peer.check()
    assert peer.versions() == {}


def test_nothing_that_could_be_built(tmp_path: Path) -> None:
    done = run("--only", "go,mq-bridge-1x128,mq-bridge-128x1", XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path))
    assert done.returncode == MISSING_PROGRAM
    assert done.stderr.splitlines() == [
        "go cannot be built without go; to get it: Go 1.26 or newer, from go.dev/dl or your system's packages",
        "mq-bridge cannot be built without cargo; to get it: Rust 1.94 or newer, from rustup.rs",
    ]
    assert [line.partition(" is not built;")[0] for line in done.stdout.splitlines()] == [
        *("go: go", "mq-bridge-1x128: mq-bridge", "mq-bridge-128x1: mq-bridge")
    ]


def test_a_peer_that_needs_no_building() -> None:
    done = run("--only", "aiohttp-publish")
    assert done.returncode == command.FINE
    assert done.stdout.startswith("aiohttp-publish: there, for nats, kafka, rabbit: python 3.")


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--only", "go,java"])
    assert stopped.value.code == 2
    assert "'java' is not one of " in capsys.readouterr().err


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.peers", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **env},
    )
