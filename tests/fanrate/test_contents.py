"""What the wheel and the source archive hold, and that they are one release."""

from __future__ import annotations

import re
import subprocess
import tarfile
from email.parser import Parser
from zipfile import ZipFile

import pytest

from core.version import __version__
from tests.fanrate.conftest import LOCAL, ROOT, Release

ROOMS = ["api", "bench", "brokers", "core", "fanrate", "nginx", "process", "stack", "store"]
READ_AT_RUN_TIME = [
    "api/page.html",
    "bench/data/ratings.csv",
    "bench/data/ratings.totals.json",
    "bench/experiments/brokers.toml",
    "bench/experiments/peers.toml",
    "bench/experiments/scale.toml",
    "bench/lab/report/page.css",
    "bench/lab/report/page.html.j2",
    "bench/peers/go/go.mod",
    "bench/peers/go/go.sum",
    "bench/peers/go/kafka.go",
    "bench/peers/go/main.go",
    "bench/peers/go/nats.go",
    "bench/peers/go/rabbit.go",
    "bench/wrk/bytes.lua",
    "bench/wrk/message.lua",
    "bench/wrk/rate.lua",
    "bench/wrk/rates.lua",
    "bench/wrk/report.lua",
    "brokers/redis_publish.lua",
    "nginx/nginx-tuned.conf.template",
    "nginx/problem-pages.conf.template",
    "stack/kafka-pom.xml",
    "store/apply.lua",
]
TYPED = ["brokers/py.typed", "core/py.typed", "fanrate/py.typed"]
NOT_PACKED = (".ci/", ".github/")
SYMBOLIC_LINK = "120000"
METADATA = f"fanrate-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(release: Release) -> set[str]:
    with ZipFile(release.wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def sdist(release: Release) -> set[str]:
    with tarfile.open(release.sdist) as archive:
        return {member.name.removeprefix(f"fanrate-{__version__}/") for member in archive if member.isfile()}


def test_the_wheel_holds_every_room_and_nothing_else(release: Release, wheel: set[str]) -> None:
    rooms = {file for file in release.files if file.partition("/")[0] in ROOMS}
    assert {name for name in wheel if not name.startswith(f"{METADATA}/")} == rooms
    assert {name.partition("/")[2] for name in wheel if name.startswith(f"{METADATA}/")} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


@pytest.mark.parametrize("name", [*READ_AT_RUN_TIME, *TYPED])
def test_what_is_read_beside_the_code_is_in_the_wheel(wheel: set[str], name: str) -> None:
    assert name in wheel


def test_the_source_archive_holds_all_that_is_kept_in_git(release: Release, sdist: set[str]) -> None:
    kept = {file for file in release.files if not file.startswith(NOT_PACKED)}
    assert sdist == kept | {"PKG-INFO"}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "pyproject.toml", "requirements/runtime.txt"} <= sdist
    assert {"docs/operations.md", "tests/conftest.py"} <= sdist


def test_git_keeps_no_symbolic_link() -> None:
    """Archives and systems without them would hold something else. Such as one to an environment elsewhere, which a
    rule for folders does not ignore."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    command = ["git", "ls-files", "--stage"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    assert len(kept) > 100
    assert [line for line in kept if line.startswith(SYMBOLIC_LINK)] == []


def test_local_files_are_in_neither(release: Release, wheel: set[str], sdist: set[str]) -> None:
    assert all((release.tree / file).exists() for file in LOCAL)
    assert not (wheel | sdist) & set(LOCAL)


def test_the_source_archive_builds_the_same_wheel(release: Release) -> None:
    with ZipFile(release.wheel) as ours, ZipFile(release.direct) as other:
        assert {info.filename: info.CRC for info in ours.infolist()} == {
            info.filename: info.CRC for info in other.infolist()
        }


def test_the_version_is_that_of_the_code(release: Release) -> None:
    with ZipFile(release.wheel) as archive:
        told = Parser().parsestr(archive.read(f"{METADATA}/METADATA").decode())
    assert told["Version"] == __version__
    assert release.sdist.name == f"fanrate-{__version__}.tar.gz"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", __version__)
