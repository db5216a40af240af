"""Settings: environment variables, read once and checked before anything connects.

Each class is a section; a service's settings are made of the sections it needs, and a component takes only its own.
`docs/settings.md` lists them all, section by section, with what the classes and fields say here.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from core.batches import ENVELOPE_BYTES
from core.durability import Durability as Durability
from core.endpoints import Access, Endpoint, Sasl
from core.errors import SettingsError
from core.rates import LARGEST_RATE, RateRange
from core.sections import Section

Dispatch = Literal["group", "topics", "inline"]
TopicChoice = Literal["round_robin", "random", "hash"]

LONGEST_WORK_S: Final = 25 * 60.0
"""The longest that the work on one batch may take: RabbitMQ takes a message back after 30 minutes."""
LONGEST_KAFKA_HORIZON_S: Final = 7 * 86_400.0
"""A day less than what topics of Kafka keep: there, what is older is not a dead letter but gone."""

_TEN_YEARS_S = 10 * 365 * 86_400.0
_NAMES = r"^[A-Za-z0-9_-]{1,64}(,[A-Za-z0-9_-]{1,64})*$"
_NUMBERS = r"^([0-9]{1,2}(,[0-9]{1,2})*)?$"


def _one_shard(shards: int) -> int:
    if shards != 1:
        raise ValueError("only 1 shard is supported")
    return shards


class Logging(Section):
    """What is logged, and how."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level logged")
    log_format: Literal["console", "json"] = Field("console", description="how a log line is written")


def topic_names(topic: str, dispatch: Dispatch, topics: int) -> list[str]:
    """The topics that batches are published to."""
    return [f"{topic}_{number}" for number in range(1, topics + 1)] if dispatch == "topics" else [topic]


class Dispatching(Section):
    """How rates come to be counted."""

    dispatch: Dispatch = Field(
        "group", description="through one topic, through several, or inline: counted by the replica, without a broker"
    )
    durability: Durability = Field("confirmed", description="what a 200 is worth: docs/delivery.md")
    topics: int = Field(3, ge=1, le=64, description="with DISPATCH=topics: how many there are, TOPIC_1 and so on")
    topic_choice: TopicChoice = Field("round_robin", description="with DISPATCH=topics: which one a request goes to")

    def topic_names(self, topic: str) -> list[str]:
        """The topics that batches are published to, where TOPIC is `topic`."""
        return topic_names(topic, self.dispatch, self.topics)


class Batching(Section):
    """How much goes together."""

    max_rates: int = Field(10_000, ge=1, le=10_000, description="most rates in one request and in one batch")


class Working(Batching):
    """How long the handling of a rate takes, as a real handler's would."""

    work_s: float = Field(0.0, ge=0, le=60, description="how long the handling of each rate takes, seconds")
    work_concurrency: int = Field(1, ge=1, le=10_000, description="rates handled at a time, per process")

    @property
    def _at_work(self) -> int:
        """Batches that share the workers of one process: as many as there are topics that it reads."""
        return 1

    @model_validator(mode="after")
    def _check_work(self) -> Self:
        longest_s = self.max_rates * self.work_s / self.work_concurrency * self._at_work
        if longest_s > LONGEST_WORK_S:
            topics = f" x {self._at_work} topics" if self._at_work > 1 else ""
            raise ValueError(
                f"MAX_RATES {self.max_rates} x WORK_S {self.work_s:g} / WORK_CONCURRENCY {self.work_concurrency}"
                f"{topics}: a batch would take {longest_s:.0f} s, at most {LONGEST_WORK_S:.0f} s; make MAX_RATES "
                "smaller"
            )
        return self


class Topology(Dispatching):
    """Where the service's broker and store are, and what it calls its own there."""

    broker_url: str = Field(
        "nats://127.0.0.1:4222", repr=False, description="the message broker: docs/brokers.md has the forms"
    )
    broker_user: str = Field("", description="user at the broker, if BROKER_URL names none: docs/security.md")
    broker_password: SecretStr = Field(SecretStr(""), description="the user's password; better from a file")
    broker_password_file: str = Field("", description="file with the user's password, read at each connect")
    broker_ca_file: str = Field(
        "", description="with TLS: file of the authorities (PEM) to trust at the broker; empty: the system's"
    )
    broker_sasl: Sasl = Field("scram-sha-512", description="how Kafka is shown user and password")
    store_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="the Redis that counts, redis://HOST:PORT/DB; with replicas all of them, HOST:PORT,HOST:PORT",
    )
    store_user: str = Field("", description="user at the store, if STORE_URL names none; empty: the default user")
    store_password: SecretStr = Field(SecretStr(""), description="the user's password; better from a file")
    store_password_file: str = Field("", description="file with the user's password, read at each connect")
    store_ca_file: str = Field(
        "", description="with TLS: file of the authorities (PEM) to trust at the store; empty: the system's"
    )
    store_replicas: int = Field(
        0, ge=0, le=8, description="replicas of the store that must have a count before it is settled: docs/clusters.md"
    )
    topic: str = Field("rates", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="topic that rates are published to")
    groups: str = Field(
        "counters", pattern=_NAMES, description="consumer groups, comma separated; the first is the one that counts"
    )
    shards: Annotated[int, AfterValidator(_one_shard)] = Field(1, description="store shards; only 1 is supported")

    @property
    def group_names(self) -> list[str]:
        """The counting group first."""
        return self.groups.split(",")

    @property
    def broker(self) -> Endpoint:
        """Where the broker is, and how to come in; raises SettingsError."""
        access = Access(
            setting="BROKER",
            user=self.broker_user,
            password=self.broker_password.get_secret_value(),
            password_file=self.broker_password_file,
            ca_file=self.broker_ca_file,
            sasl=self.broker_sasl,
        )
        return Endpoint.of(self.broker_url, access)

    @property
    def store(self) -> Endpoint:
        """Where the store is, and how to come in; raises SettingsError."""
        access = Access(
            setting="STORE",
            user=self.store_user,
            password=self.store_password.get_secret_value(),
            password_file=self.store_password_file,
            ca_file=self.store_ca_file,
        )
        return Endpoint.of(self.store_url, access)

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if len(set(self.group_names)) < len(self.group_names):
            raise ValueError(f"GROUPS {self.groups} names a group twice")
        return self

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        """A broker and a store in one Redis would share its memory bound, its eviction policy and its fate."""
        if self.dispatch == "inline" or _scheme(self.broker_url) != "redis":
            return self
        broker, store = (
            _redis_hosts(url, setting) for url, setting in ((self.broker_url, "BROKER"), (self.store_url, "STORE"))
        )
        if shared := broker & store:
            host, port = min(shared)
            raise ValueError(
                f"BROKER_URL and STORE_URL both name {host}:{port}: one address for both is refused; the broker needs "
                "a Redis of its own"
            )
        return self

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        """One host may stand for several, behind a name that follows the primary."""
        hosts = len(_redis_hosts(self.store_url, "STORE")) if self.store_replicas else 0
        if 1 < hosts <= self.store_replicas:
            raise ValueError(
                f"STORE_REPLICAS {self.store_replicas}: STORE_URL names {hosts}, of which one is the primary: at most "
                f"{hosts - 1}"
            )
        return self


class Listening(Section):
    """Where clients come in."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port of the HTTP interface; 0 takes a free one")
    access_log: bool = Field(False, description="log every request, with X-Forwarded-For; costs most of the throughput")
    hot_route: bool = Field(
        True, description="answer POST /rate in its simple forms without aiohttp; off while ACCESS_LOG is on"
    )


class Intake(Batching):
    """What a request may hold."""

    rate_min: int = Field(0, ge=-LARGEST_RATE, le=LARGEST_RATE, description="smallest rate taken in")
    rate_max: int = Field(100, ge=-LARGEST_RATE, le=LARGEST_RATE, description="largest rate taken in")

    @property
    def rate_range(self) -> RateRange:
        return RateRange(self.rate_min, self.rate_max)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.rate_min > self.rate_max:
            raise ValueError(f"RATE_MIN {self.rate_min} is above RATE_MAX {self.rate_max}")
        return self


SPACING: Final = {"MIN_INTERVAL_S": "0.002"}
"""For replicas that share a machine: without it each sends many small batches, which cost broker and processes more
than they gain."""


class Publishing(Section):
    """How lanes commit groups."""

    max_in_flight: int = Field(2, ge=1, le=64, description="unconfirmed publishes per lane; more rates batch")
    min_interval_s: float = Field(0.0, ge=0, le=0.002, description="least time between publishes of a lane, seconds")
    confirm_timeout_s: float = Field(5.0, gt=0, le=60, description="how long a request waits for its confirm, seconds")
    publish_timeout_s: float = Field(
        5.0, gt=0, le=60, description="how long a publish waits for the broker before it is sent again, seconds"
    )
    max_unconfirmed: int = Field(50_000, ge=1, description="rates taken in and unconfirmed, per replica; beyond: 503")
    max_batch_bytes: int = Field(
        512 * 1024, ge=4 * ENVELOPE_BYTES, le=64 * 2**20, description="largest broker message of a batch, bytes"
    )


class Keeping(Section):
    """How long the store remembers what was counted."""

    horizon_s: float = Field(
        7 * 86_400.0,
        ge=1,
        le=_TEN_YEARS_S,
        description="how long batches are remembered, seconds; older ones are dead",
    )
    idempotency_s: float = Field(
        86_400.0, ge=1, le=_TEN_YEARS_S, description="how long an Idempotency-Key is remembered, seconds"
    )


class Queueing(Topology, Keeping):
    """What goes through a broker, and how old it may become there."""

    @model_validator(mode="after")
    def _check_horizon(self) -> Self:
        if self.dispatch == "inline" or _scheme(self.broker_url) != "kafka":
            return self
        if self.horizon_s > LONGEST_KAFKA_HORIZON_S:
            raise ValueError(
                f"HORIZON_S {self.horizon_s:.0f} and BROKER_URL kafka://: at most "
                f"{LONGEST_KAFKA_HORIZON_S:.0f}; topics there keep messages for 8 days, and what is older is lost"
            )
        return self


class Draining(Section):
    """How long a stop may take."""

    drain_s: float = Field(8.0, ge=0, le=600, description="most time from SIGTERM to the end, seconds")


class Replica(Listening, Intake, Publishing, Dispatching, Working):
    """What one replica of the API needs beyond its broker and store."""

    @model_validator(mode="after")
    def _check_bound(self) -> Self:
        if self.max_unconfirmed < self.max_rates:
            raise ValueError(f"MAX_UNCONFIRMED {self.max_unconfirmed} is below MAX_RATES {self.max_rates}")
        return self


class ApiSettings(Replica, Queueing, Draining, Logging):
    """What `python -m api` has to itself: one replica, or several on its port."""

    workers: int = Field(
        1, ge=1, le=64, description="processes on the port, each a replica; the kernel spreads clients"
    )
    worker_health_port: int = Field(
        0,
        ge=0,
        le=65535 - 64,
        description="with WORKERS: port of the first worker's own health and metrics, then upwards; 0: none",
    )


class ProcessSettings(Queueing, Working, Draining, Logging):
    """What a process has to itself: its part of the work, and where it tells how it is."""

    host: str = Field("127.0.0.1", description="address that health and metrics listen on")
    health_port: int = Field(8081, ge=0, le=65535, description="port of health and metrics; 0 takes a free one")
    group: str = Field(
        "", pattern=r"^[A-Za-z0-9_-]{0,64}$", description="the group it joins; empty: the first of GROUPS"
    )
    read_topics: str = Field(
        "", pattern=_NUMBERS, description="with DISPATCH=topics: numbers of those it reads, comma separated; empty: all"
    )

    @property
    def group_name(self) -> str:
        return self.group or self.group_names[0]

    @property
    def read_topic_names(self) -> list[str]:
        """The topics that this process reads, each once."""
        topics = self.topic_names(self.topic)
        return [topics[number - 1] for number in self._read_numbers] if self.read_topics else topics

    @property
    def _at_work(self) -> int:
        return len(self._read_numbers) or len(self.topic_names(self.topic))

    @property
    def _read_numbers(self) -> list[int]:
        return sorted({int(number) for number in self.read_topics.split(",")}) if self.read_topics else []

    @model_validator(mode="after")
    def _check_dispatch(self) -> Self:
        if self.dispatch == "inline":
            raise ValueError(
                "DISPATCH=inline: the replicas count by themselves, there is nothing for a process to read"
            )
        if self.read_topics and self.dispatch != "topics":
            raise ValueError(f"READ_TOPICS {self.read_topics}: only with DISPATCH=topics")
        if any(not 1 <= number <= self.topics for number in self._read_numbers):
            raise ValueError(f"READ_TOPICS {self.read_topics}: the topics are 1 to {self.topics}")
        return self

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if self.group_name not in self.group_names:
            raise ValueError(f"GROUP {self.group} is not one of GROUPS {self.groups}")
        return self


class EmbeddedSettings(Replica, Keeping, Draining, Logging):
    """`python -m stack run`."""

    @model_validator(mode="after")
    def _check_durability(self) -> Self:
        if self.durability == "fsync":
            raise ValueError("DURABILITY=fsync: the embedded service keeps nothing on disk")
        return self


def _scheme(url: str) -> str:
    """The scheme of a URL, without its TLS, or nothing if it cannot be read: that is told when it is used."""
    try:
        return Endpoint.place(url).scheme
    except SettingsError:
        return ""


def _redis_hosts(url: str, setting: str) -> set[tuple[str, int]]:
    """Hosts and ports; raises ValueError where there is none."""
    try:
        hosts = Endpoint.place(url, setting).with_port(6379).hosts
    except SettingsError as exc:
        raise ValueError(str(exc)) from None
    return {("127.0.0.1" if host == "localhost" else host, port) for host, port in hosts}
