"""The release as a packager makes it: built without a network from a copy of the tree, and installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCAL = [
    ".hypothesis/constants/a",
    ".mypy_cache/3.11/a.json",
    ".stack/logs/api-1.log",
    ".venv/lib/a.py",
    "bench/out/a.json",
    "core/__pycache__/a.pyc",
    "dist/fanrate-0.0.1-py3-none-any.whl",
    "fanrate.egg-info/PKG-INFO",
]
"""What lies about where one works: in no release."""
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Release:
    """Both files, and the wheel once more: `wheel` comes from the source archive, `direct` from the tree."""

    tree: Path
    files: Sequence[str]
    """What the tree holds, as paths within it, besides LOCAL."""
    sdist: Path
    wheel: Path
    direct: Path


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel in an environment of its own, of which only the program `fanrate` is on the PATH."""

    python: Path
    program: Path
    folder: Path
    """Where it is called: files there have the names of rooms."""
    env: Mapping[str, str]

    def call(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """One run of `fanrate` that ends by itself."""
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("release")
    tree = folder / "tree"
    files = _working_files()
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tree / file)
    for file in LOCAL:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_text("local\n")
    _build(tree, folder / "dist")
    _build(tree, folder / "direct", "--wheel")
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    (direct,) = (folder / "direct").glob("*.whl")
    return Release(tree, files, sdist, wheel, direct)


def _working_files() -> list[str]:
    """What git has or would take."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: git tells what belongs to it")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return [file for file in listed.stdout.splitlines() if (ROOT / file).is_file()]


def _build(tree: Path, out: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *arguments, str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def installed(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Its libraries are those of the tests' environment, which it finds behind its own packages."""
    home = tmp_path_factory.mktemp("installed")
    python = home / "venv" / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--without-pip", str(home / "venv"))
    told = _run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    Path(told.strip(), "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    _run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(release.wheel))
    program = home / "bin" / "fanrate"
    program.parent.mkdir()
    program.symlink_to(python.with_name("fanrate"))
    folder = home / "elsewhere"
    folder.mkdir()
    for room in ("api", "core", "process", "stack", "store"):
        (folder / f"{room}.py").write_text("raise SystemExit('this is not Fanrate')\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return Installed(python, program, folder, {**env, "PATH": f"{program.parent}{os.pathsep}{os.defpath}"})


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
