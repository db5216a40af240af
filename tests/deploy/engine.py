"""The container engine, by its command line: a compose project of one broker, and what its containers do."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import FanrateError
from core.settings import ApiSettings, ProcessSettings
from tests.deploy.files import OLDEST_COMPOSE, ROOT, compose_file, locks_file

CALL_S = 60.0
UP_S = 600.0
"""How long it may take to build the image, fetch the others and start all."""
HEALTHY_S = 180.0
POLL_S = 0.5
_TOLD_LINES = 30


class CheckFailed(FanrateError):
    """Something is not as it should be."""


class NoEngine(FanrateError):
    """There is no engine, or it does not answer."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a project, at one moment."""

    id: str
    name: str
    """Service and number, such as `api-2`."""
    pid: int
    restarts: int
    health: str

    @property
    def kind(self) -> str:
        """The service, or for one of several such as `process-1` what they have in common."""
        return self.name.partition("-")[0]


async def call(*argv: str, env: dict[str, str] | None = None, timeout_s: float = CALL_S) -> str:
    """Run a command; what it says on standard output. Raises CheckFailed with the end of all that it said."""
    code, out, err = await attempt(*argv, env=env, timeout_s=timeout_s)
    if code:
        told = "\n".join([*out.splitlines(), *err.splitlines()][-_TOLD_LINES:])
        raise CheckFailed(f"{' '.join(argv)} ended with {code}\n{told}")
    return out


async def attempt(*argv: str, env: dict[str, str] | None = None, timeout_s: float = CALL_S) -> tuple[int, str, str]:
    """Run a command: exit code, standard output, standard error. Raises CheckFailed if it takes too long."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *argv, env=env, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await child.communicate()
    except TimeoutError:
        raise CheckFailed(f"{' '.join(argv)} took more than {timeout_s:g} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


async def engine_version() -> str:
    """What answers, for people. Raises NoEngine."""
    try:
        server = await call("docker", "version", "--format", "{{.Server.Version}}")
    except (OSError, CheckFailed) as exc:
        raise NoEngine(next(filter(None, str(exc).splitlines()[1:]), str(exc))) from exc
    try:
        compose = await call("docker", "compose", "version", "--short")
    except CheckFailed as exc:
        raise NoEngine("docker is there, and its plugin compose v2 is not") from exc
    version = re.match(r"v?(\d+)\.(\d+)", compose)  # one that was built by hand may have none
    if version and tuple(map(int, version.groups())) < OLDEST_COMPOSE:
        raise NoEngine(f"compose {compose.strip()} is too old for these files")
    return f"docker engine {server.strip()}, compose {compose.strip()}"


class Project:
    """The compose file of `broker` as a project of its own, published on `port` of this machine.

    Nothing that the shell or `.env` chooses for a user's own service reaches it.
    """

    def __init__(self, broker: str, port: int) -> None:
        self.name = f"fanrate-check-{broker}"
        self.url = f"http://127.0.0.1:{port}"
        self._broker = broker
        self._files = [compose_file(broker)]
        known = {name.upper() for section in (ApiSettings, ProcessSettings) for name in section.model_fields}
        self._env = {name: value for name, value in os.environ.items() if name not in known}
        self._env["PUBLISH"] = f"127.0.0.1:{port}"

    def lock(self, folder: Path) -> None:
        """From now on with the locks whose files are in `folder`."""
        self._files.append(locks_file(self._broker))
        self._env["LOCKS"] = str(folder)

    async def compose(self, *arguments: str, timeout_s: float = CALL_S, **settings: str) -> str:
        """One call of `docker compose`; `settings` are what a user would set before it. Raises CheckFailed."""
        return await call(*self._command(arguments), env={**self._env, **settings}, timeout_s=timeout_s)

    async def up(self, *arguments: str, profile: str = "", **settings: str) -> float:
        """Start all of it and wait until each is healthy; how long that took, seconds. Raises CheckFailed."""
        start = time.monotonic()
        try:
            await self.compose("--profile", profile, "up", "--detach", "--wait", *arguments, timeout_s=UP_S, **settings)
        except CheckFailed as exc:
            raise CheckFailed("\n".join([str(exc), *await self._complaints()])) from exc
        return time.monotonic() - start

    async def down(self, *arguments: str) -> None:
        await self.compose("--profile", "topics", "down", "--timeout", "30", *arguments, timeout_s=UP_S)

    async def forget_broker(self) -> None:
        """What docs/containers.md tells to do with a volume that has other settings."""
        await self.down()
        await call("docker", "volume", "rm", f"{self.name}_broker")

    async def reason(self, container: Container) -> str:
        """What its own health check says of whether it is ready."""
        _, out, err = await attempt("docker", "exec", container.id, "fanrate", "healthy", "--ready")
        return (out + err).strip()

    async def shown(self, container: Container) -> str:
        """All that the engine tells of it: its settings, its command lines, its log."""
        told = []
        for asked in ("inspect", "top", "logs"):
            code, out, err = await attempt("docker", asked, container.id)
            if code:
                raise CheckFailed(f"docker {asked} {container.name}: {err}")
            told += [out, err]
        return "\n".join(told)

    async def inside(self, service: str, *argv: str) -> str:
        """What a command says that is run in a container of `service`."""
        return await self.compose("exec", "--no-TTY", service, *argv)

    async def metric(self, container: Container, name: str) -> float:
        """A metric of a service, read inside of its container: nothing else is let in."""
        read = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
        text = await call("docker", "exec", container.id, "python", "-c", read)
        values = [float(line.split()[-1]) for line in text.splitlines() if line.partition("{")[0].split()[:1] == [name]]
        return sum(values)

    async def containers(self) -> list[Container]:
        """Those that are there now, by name."""
        ours = f"label=com.docker.compose.project={self.name}"
        ids = await call("docker", "ps", "--all", "--quiet", "--filter", ours)
        found = [await self._look_at(each) for each in ids.split()]
        return sorted((each for each in found if each), key=lambda each: each.name)

    async def kill(self, container: Container) -> None:
        """End the container's first process as the system would: `docker kill` triggers no restart policy, and the
        process cannot be killed from within. A container that sees the machine's processes can, whoever runs this."""
        kill = f"import os; os.kill({container.pid}, 9)"
        rights = ["--pid", "host", "--network", "none", "--user", "0", "--cap-drop", "ALL", "--cap-add", "KILL"]
        await call("docker", "run", "--rm", *rights, "fanrate", "python", "-c", kill)

    async def until_back(self, killed: Container) -> float:
        """Wait until another process is there in its place and healthy; how long it took, seconds."""
        start = time.monotonic()
        while time.monotonic() - start < HEALTHY_S:
            now = await self._look_at(killed.id)
            if now and now.pid not in (0, killed.pid) and now.health == "healthy":
                return time.monotonic() - start
            await asyncio.sleep(POLL_S)
        raise CheckFailed(f"{killed.name} was killed and is not healthy after {HEALTHY_S:g} s")

    async def _complaints(self) -> list[str]:
        """The last that each container said which is not healthy."""
        said = []
        for container in await self.containers():
            if container.health != "healthy":
                _, out, err = await attempt("docker", "logs", "--tail", "10", container.id)
                said += [f"{container.name}: {line}" for line in (out + err).splitlines()]
        return said

    async def _look_at(self, known: str) -> Container | None:
        """None if it was removed meanwhile."""
        number = '{{index .Config.Labels "com.docker.compose.container-number"}}'
        service = '{{index .Config.Labels "com.docker.compose.service"}}'
        shown = f"{service} {number} {{{{.State.Pid}}}} {{{{.RestartCount}}}} {{{{.State.Health.Status}}}}"
        code, out, _ = await attempt("docker", "inspect", "--format", shown, known)
        if code:
            return None
        name, count, pid, restarts, health = out.split()
        return Container(known, f"{name}-{count}", int(pid), int(restarts), health)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        files = [each for path in self._files for each in ("--file", str(path))]
        return ["docker", "compose", "--env-file", os.devnull, *files, "--project-name", self.name, *arguments]


@asynccontextmanager
async def project(broker: str, port: int) -> AsyncIterator[Project]:
    """A project that is removed before and after, volumes and all."""
    made = Project(broker, port)
    await made.down("--volumes", "--remove-orphans")
    try:
        yield made
    finally:
        await made.down("--volumes", "--remove-orphans")
