"""Building peers from source, into the user's cache: beside the servers that `make services` builds, where all clones
share them. A folder is named after what its program is built of, so that an edit builds another."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from core.commands import ROOT, remedy
from core.errors import FanrateError
from stack import groups
from stack.programs import own_folder

BUILD_S: Final = 3600.0
PROGRESS_S: Final = 30.0
TELLS_S: Final = 20.0
LAST_LINES: Final = 20

_HASH_LENGTH: Final = 12


class NotBuilt(FanrateError):
    """A peer, or what builds it, is not there; the message ends with how to get it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; to get it: {remedy}")


@dataclass(frozen=True)
class Recipe:
    """How the program `program` is built by `command`, to which the folder that it comes to lie in is given.

    `tools` are the programs that this takes, each with how to get it; `sources` are the files it is built of; `lasts`
    is for people. Both commands run in `folder`."""

    name: str
    program: str
    command: Callable[[Path], Sequence[str]]
    tools: Mapping[str, str]
    lasts: str
    sources: Sequence[Path] = ()
    directory: Path = ROOT
    env: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def folder(self) -> Path:
        """Where it lies once it is built."""
        words = [*self.command(Path()), *(f"{name}={value}" for name, value in sorted(self.env.items()))]
        made_of = hashlib.sha256("\0".join(words).encode())
        for source in self.sources:
            made_of.update(source.name.encode() + b"\0" + source.read_bytes())
        return own_folder().parent / "peers" / f"{self.name}-{made_of.hexdigest()[:_HASH_LENGTH]}"

    @property
    def path(self) -> Path:
        return self.folder / self.program

    @property
    def log(self) -> Path:
        """The end of what the last try said, if it failed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def is_built(self) -> bool:
        return os.path.exists(self.path)

    def find(self) -> Path:
        """The program; raises NotBuilt, with the reason where there is a log of one."""
        if self.is_built:
            return self.path
        build = f"{remedy('make peers', 'python -m bench.peers')} ({self.lasts})"
        if os.path.exists(self.log):
            raise NotBuilt(f"{self.name} could not be built, its log {self.log} ends: {_tail(self.log, 1)}", build)
        self.check_tools()
        raise NotBuilt(f"{self.name} is not built", build)

    def check_tools(self) -> None:
        """Raises NotBuilt for the first that is missing."""
        for tool, source in self.tools.items():
            if shutil.which(tool) is None:
                raise NotBuilt(f"{self.name} cannot be built without {tool}", source)

    def build(self, say: Callable[[str], None], *, within_s: float = BUILD_S) -> None:
        """Build it; the folder appears whole or not at all. Raises NotBuilt, after the end of what was said."""
        self.check_tools()
        say(f"{self.name}: building into {self.folder}: {self.lasts}")
        try:
            self._build(say, within_s)
        except OSError as exc:
            reason = f"{self.name} cannot be built in {self.folder.parent} ({exc.strerror or exc})"
            raise NotBuilt(reason, "make room there and let it be written to, or set XDG_CACHE_HOME") from exc

    def _build(self, say: Callable[[str], None], within_s: float) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._sweep()
        place = TemporaryDirectory(prefix=f"{self.folder.name}.", dir=self.folder.parent, ignore_cleanup_errors=True)
        with place as work, _held(Path(work)):
            made, log = Path(work) / "made", Path(work) / "log"
            made.mkdir()
            if self._run(self.command(made), log, say, within_s):
                said = _tail(log, LAST_LINES)
                self.log.write_text(said + "\n")
                say(said)
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
                made.rename(self.folder)
                self.log.unlink(missing_ok=True)
        self.find()

    def _sweep(self) -> None:
        """Remove what builds left behind that had no chance to."""
        for left in self.folder.parent.glob(f"{self.name}-*.*/"):
            with suppress(OSError), _held(left):
                shutil.rmtree(left, ignore_errors=True)

    def _run(self, command: Sequence[str], log: Path, say: Callable[[str], None], within_s: float) -> int:
        """The exit code. All that it starts ends with it, and with us."""
        start = time.monotonic()
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as building,
        ):
            try:
                while (left_s := start + within_s - time.monotonic()) > 0:
                    try:
                        return building.wait(min(PROGRESS_S, left_s))
                    except subprocess.TimeoutExpired:
                        say(f"{self.name}: {time.monotonic() - start:.0f} s, {_tail(log, 1)}")
                raise NotBuilt(f"{self.name} was not built within {within_s:g} s", "try again on a quieter machine")
            finally:
                groups.send(building.pid, signal.SIGKILL)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder as long as this program lives; raises BlockingIOError while another one holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _tail(log: Path, lines: int) -> str:
    return "\n".join(line.strip() for line in log.read_text(errors="replace").splitlines()[-lines:])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ask(command: Sequence[str | Path]) -> str:
    """What a program says when it is asked."""
    return subprocess.run(command, capture_output=True, text=True, timeout=TELLS_S, check=True).stdout
