"""Users of the service, for locust: `make locust`, with a topology running.

Each posts film ratings, several a second, some under a key and then again until they are confirmed, and now and then
reads. What they sent, and what was answered 200, is held against what the service counted once they have stopped:
LOSS 0 DUP 0, or locust ends with 1. Other traffic on the same subjects disturbs that, as it does a replay.

SHAPE=steps adds users until the 99th percentile of a POST is beyond P99_MS. It is a closed loop, if a patient one: it
finds out where a service gives in; latencies to compare come from `bench.open_loop`.

locust makes the standard library cooperative (gevent) in its own process; nothing imports this file but locust.
"""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import locust.stats
from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner

from bench.client import WrongAddress
from bench.crowd import Run
from bench.load import percentile
from bench.reading import UnreadableService
from bench.steps import Look, Steps
from stack.ports import is_free

POST: Final = "/rate"
POST_KEYED: Final = "/rate (key)"
PER_USER_S: Final = 10.0
"""Requests a second of each user, if the answers come in time."""
TRIES: Final = 3
FOUND: Final = 1
WRONG_USAGE: Final = 2


def setting(name: str, default: float) -> float:
    """A number above 0 from the environment; ends locust with 2 where it is none."""
    text = os.environ.get(name) or str(default)
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    print(f"{name}={text}: takes a number above 0", file=sys.stderr)
    raise SystemExit(WRONG_USAGE)


PATIENCE_S: Final = setting("PATIENCE_S", 20)
"""How long the counting may stand still at the end, or the service be away, before the ledger stays open."""
BOUND_S: Final = setting("P99_MS", 100) / 1e3
SHAPE: Final = os.environ.get("SHAPE", "")
PARTS: Final = 10
"""With SHAPE=steps each step adds this part of USERS."""
LOOK_S: Final = 2.0

locust.stats.PERCENTILES_TO_CHART = [0.5, 0.99]


class Desk:
    """What there is to know of the test that runs, if one does, and to say of it once it has ended."""

    def __init__(self) -> None:
        self.prepared: Run | None = None
        self.run: Run | None = None
        self.steps: Steps | None = None
        self.posts_s: list[float] = []
        """With SHAPE=steps: of each POST since the last look, how long it took."""
        self.failed = 0
        self.under_way: dict[object, float] = {}
        """When each request that is not answered yet was sent."""
        self.lines: list[str] = []

    def look(self, seconds: float) -> Look:
        """What came in the last `seconds`; what comes from now on belongs to the next."""
        now = time.monotonic()
        waiting_s = now - min(self.under_way.values(), default=now)
        found = Look(percentile(self.posts_s, 99), len(self.posts_s) / seconds, self.failed, waiting_s)
        self.posts_s, self.failed = [], 0
        return found

    def tell(self) -> None:
        """Say it, once."""
        if self.lines:
            print("\n".join(self.lines), flush=True)
        self.lines = []


desk = Desk()


class Rater(FastHttpUser):
    """Somebody who rates films, at a steady pace."""

    wait_time = constant_throughput(PER_USER_S)
    connection_timeout = network_timeout = 10.0

    def on_start(self) -> None:
        if desk.run is None:
            raise StopUser
        self.run_ = desk.run
        self.subject, _ = self.run_.next_rate()

    @task(40)
    def rate(self) -> None:
        self._post({}, POST)

    @task(5)
    def rate_until_confirmed(self) -> None:
        """Under a key the same rate may be sent again: it counts once."""
        self._post({"Idempotency-Key": self.run_.next_key()}, POST_KEYED, tries=TRIES)

    @task(3)
    def look_at_a_film(self) -> None:
        """Nothing may have been counted of it yet."""
        with self.client.get(f"/rates/{self.subject}", name="/rates/{subject}", catch_response=True) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                response.success()

    @task(2)
    def look_at_the_top(self) -> None:
        self.client.get("/top?n=10", name="/top")

    def _post(self, headers: dict[str, str], name: str, *, tries: int = 1) -> None:
        self.subject, number = rate = self.run_.next_rate()
        path = f"/rate?rate={number}&subject={self.subject}"

        def attempt() -> int:
            request = object()
            desk.under_way[request] = time.monotonic()
            try:
                return int(self.client.post(path, name=name, headers=headers).status_code)
            finally:
                del desk.under_way[request]

        self.run_.send(rate, attempt, tries=tries)


@events.init.add_listener
def begin(environment: Environment, **_: object) -> None:
    """The books are kept in one process. A service that cannot be read is told of before a user starts."""
    if not isinstance(environment.runner, LocalRunner):
        print("one process keeps the books: leave out --processes, --master and --worker", file=sys.stderr)
        raise SystemExit(WRONG_USAGE)
    options = environment.parsed_options
    assert options is not None
    if not options.headless and not is_free(options.web_port):
        print(f"port {options.web_port} is taken, where the page was to be: ARGS='--web-port 8090'", file=sys.stderr)
        raise SystemExit(FOUND)
    try:
        desk.prepared = Run(environment.host or "", patience_s=PATIENCE_S)
    except WrongAddress as exc:
        print(f"--host: {exc}", file=sys.stderr)
        raise SystemExit(WRONG_USAGE) from exc
    except UnreadableService as exc:
        print(f"no Fanrate can be read at {environment.host}: {exc}", file=sys.stderr)
        raise SystemExit(FOUND) from exc
    if not (options.headless or options.autostart):
        desk.prepared = None


@events.test_start.add_listener
def start(environment: Environment, **_: object) -> None:
    """The first run is prepared, for locust's clock goes already; one that is begun on the page is not."""
    run, desk.prepared = desk.prepared, None
    try:
        desk.run = run or Run(environment.host or "", patience_s=PATIENCE_S)
    except (WrongAddress, UnreadableService) as exc:
        desk.run = None
        desk.lines.append(f"nothing was sent: {exc}")
        environment.process_exit_code = FOUND


@events.test_stop.add_listener
def stop(environment: Environment, **_: object) -> None:
    run, desk.run = desk.run, None
    if run is not None:
        if desk.steps is not None:
            desk.lines += desk.steps.lines()
        if environment.runner is not None and environment.runner.cpu_warning_emitted:
            desk.lines.append("locust itself had a core to its limit: what gave in may be locust, not the service")
        clean, lines = run.end()
        desk.lines += lines
        if not clean:
            environment.process_exit_code = FOUND
    if environment.web_ui is not None:
        desk.tell()


@events.quitting.add_listener
def stop_before_the_exit_code_is_decided(environment: Environment, **_: object) -> None:
    """Ctrl-C comes here while users run."""
    if environment.runner is not None:
        environment.runner.stop()


@events.quit.add_listener
def end(**_: object) -> None:
    """The last lines, below locust's tables."""
    desk.tell()


if SHAPE not in ("", "steps"):
    print(f"SHAPE={SHAPE}: takes steps, or nothing", file=sys.stderr)
    raise SystemExit(WRONG_USAGE)

if SHAPE:

    class Stepping(LoadTestShape):
        """Hands looks to `bench.steps`, and its users to locust, which asks about once a second."""

        use_common_options = True
        _looked_at = 0.0

        def reset_time(self) -> None:
            super().reset_time()
            assert self.runner is not None
            options = self.runner.environment.parsed_options
            users = (options.num_users if options is not None else None) or PARTS
            desk.steps = Steps(max(1, users // PARTS), BOUND_S)
            self._look()

        def tick(self) -> tuple[int, float] | None:
            assert desk.steps is not None
            if self.get_current_user_count() and time.monotonic() - self._looked_at >= LOOK_S:
                desk.steps.see(self._look())
            users = desk.steps.users
            return None if users is None else (users, float(users))

        def _look(self) -> Look:
            now = time.monotonic()
            seconds, self._looked_at = now - self._looked_at, now
            return desk.look(seconds)

    @events.request.add_listener
    def note(name: str, response_time: float, exception: Exception | None, **_: object) -> None:
        """Each answer to a POST, in milliseconds."""
        if name in (POST, POST_KEYED):
            desk.posts_s.append(response_time / 1e3)
            desk.failed += exception is not None
