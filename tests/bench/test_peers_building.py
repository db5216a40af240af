"""Building peers, and the command that does."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench.peers import PEERS, NotBuilt, fastapi
from bench.peers import __main__ as command
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


def test_a_build_that_fails_tells_its_end_then_and_later(source: Path) -> None:
    reason = source.with_name("reason")
    reason.write_text("no such thing")
    script = f"print('one\\ntwo', flush=True); {WRITES}; sys.exit(open({str(reason)!r}).read() or 0)"
    example = recipe(source, script=script)
    said: list[str] = []
    for attempt in (lambda: example.build(said.append), example.find):
        with pytest.raises(NotBuilt, match=r"could not be built, its log \S+ ends: no such thing; to get it: make"):
            attempt()
    assert said[-1].splitlines() == ["one", "two", "no such thing"]
    assert not example.is_built
    assert list(example.folder.parent.iterdir()) == [example.log]
    reason.write_text("")
    example.build(said.append)
    assert list(example.folder.parent.iterdir()) == [example.folder]


def test_a_build_that_takes_too_long(source: Path) -> None:
    example = recipe(source, script="import time; time.sleep(300)")
    with pytest.raises(NotBuilt, match=r"example was not built within 0\.2 s"):
        example.build(lambda line: None, within_s=0.2)
    assert list(example.folder.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_a_reason(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fanrate").write_text("a file")
    with pytest.raises(
        NotBuilt, match=rf"example cannot be built in {tmp_path}/cache/fanrate/peers \(Not a directory\)"
    ):
        recipe(source).build(lambda line: None)


def test_what_builds_left_behind_is_swept_unless_one_goes_on(source: Path) -> None:
    example = recipe(source)
    left, held = (example.folder.parent / f"example-0123.{name}" for name in ("left", "held"))
    for folder in (left, held):
        folder.mkdir(parents=True)
    descriptor = os.open(held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    example.build(lambda line: None)
    os.close(descriptor)
    assert {path.name for path in example.folder.parent.iterdir()} == {example.folder.name, held.name}


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_build_ends_with_whoever_builds(ending: signal.Signals, tmp_path: Path) -> None:
    """As `go build` and `cargo` do, it has children of its own."""
    tool = tmp_path / "go"
    tool.write_text(
        f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/child.new\nmv {tmp_path}/child.new {tmp_path}/child\nwait\n"
    )
    tool.chmod(0o755)
    builder = subprocess.Popen(
        [sys.executable, "-m", "bench.peers", "--only", "go"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    try:
        child = int(_told(tmp_path / "child"))
        builder.send_signal(ending)
        assert builder.wait(10) == (130 if ending == signal.SIGINT else 128 + ending)
    finally:
        builder.kill()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(child).wait(10)
    assert list((tmp_path / "fanrate" / "peers").iterdir()) == []


def _told(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


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
    assert [line.partition(" cannot be built without")[0] for line in done.stdout.splitlines()] == [
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
