"""Settings: environment variables, read once and checked before anything connects.

Each class is a section; a service's settings are made of the sections it needs, and a component takes only its own.
`docs/operations.md` has the table.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.batches import ENVELOPE_BYTES
from core.errors import SettingsError
from core.rates import LARGEST_RATE, RateRange

Durability = Literal["relaxed", "confirmed", "fsync"]
Dispatch = Literal["group", "topics", "inline"]
TopicChoice = Literal["round_robin", "random", "hash"]

_TEN_YEARS_S = 10 * 365 * 86_400.0


def _one_shard(shards: int) -> int:
    if shards != 1:
        raise ValueError("only 1 shard is supported")
    return shards


class Section(BaseSettings):
    """Fields are set by the environment variable of their name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)


class Logging(Section):
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level logged")
    log_format: Literal["console", "json"] = Field("console", description="how a log line is written")


class Topology(Section):
    broker_url: str = Field("nats://127.0.0.1:4222", description="the message broker, nats://HOST:PORT")
    store_url: str = Field("redis://127.0.0.1:6379/0", description="the Redis that counts, redis://HOST:PORT/DB")
    topic: str = Field("rates", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="topic that rates are published to")
    shards: Annotated[int, AfterValidator(_one_shard)] = Field(1, description="store shards; only 1 is supported")


class Listening(Section):
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port of the HTTP interface; 0 takes a free one")
    access_log: bool = Field(False, description="log every request; halves the throughput")


class Intake(Section):
    """What a request may hold."""

    rate_min: int = Field(0, ge=-LARGEST_RATE, le=LARGEST_RATE, description="smallest rate taken in")
    rate_max: int = Field(100, ge=-LARGEST_RATE, le=LARGEST_RATE, description="largest rate taken in")
    max_rates: int = Field(10_000, ge=1, le=10_000, description="most rates in one request and in one batch")

    @property
    def rate_range(self) -> RateRange:
        return RateRange(self.rate_min, self.rate_max)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.rate_min > self.rate_max:
            raise ValueError(f"RATE_MIN {self.rate_min} is above RATE_MAX {self.rate_max}")
        return self


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


class Draining(Section):
    drain_s: float = Field(8.0, ge=0, le=600, description="most time from SIGTERM to the end, seconds")


class Replica(Listening, Intake, Publishing):
    """What one replica of the API needs beyond its broker and store."""

    @model_validator(mode="after")
    def _check_bound(self) -> Self:
        if self.max_unconfirmed < self.max_rates:
            raise ValueError(f"MAX_UNCONFIRMED {self.max_unconfirmed} is below MAX_RATES {self.max_rates}")
        return self


class ApiSettings(Replica, Topology, Keeping, Draining, Logging):
    """`python -m api`."""


class ProcessSettings(Topology, Keeping, Draining, Logging):
    """`python -m process`."""

    host: str = Field("127.0.0.1", description="address that health and metrics listen on")
    health_port: int = Field(8081, ge=0, le=65535, description="port of health and metrics; 0 takes a free one")


class EmbeddedSettings(Replica, Keeping, Draining, Logging):
    """`python -m stack run`."""


_S = TypeVar("_S", bound=Section)


def load(section: type[_S]) -> _S:
    """Read `section` from the environment; raises SettingsError with one line per wrong setting."""
    try:
        return section()
    except ValidationError as exc:
        lines = []
        for error in exc.errors():
            name = str(error["loc"][0]).upper() + ": " if error["loc"] else ""
            got = f", not {error['input']!r}" if error["loc"] else ""
            lines.append(f"{name}{error['msg'].removeprefix('Value error, ')}{got}")
        raise SettingsError("\n".join(lines)) from None


def describe(section: type[Section]) -> str:
    """The settings of `section` as lines for `--help`: name, default, description."""
    fields = section.model_fields.items()
    width = max(len(name) for name, _ in fields)
    return "\n".join(
        f"  {name.upper():<{width}}  {field.description}{_values(field)} [{field.default}]" for name, field in fields
    )


def _values(field: FieldInfo) -> str:
    """The values that `field` takes, if they are few or bounded."""
    if get_origin(field.annotation) is Literal:
        return f" ({' | '.join(get_args(field.annotation))})"
    least, most = "", ""
    for bound in field.metadata:
        if isinstance(bound, Ge):
            least = _plain(bound.ge)
        elif isinstance(bound, Gt):
            least = f"above {_plain(bound.gt)}"
        elif isinstance(bound, Le):
            most = _plain(bound.le)
    if most:
        return f" ({least} to {most})"
    return f" (at least {least})" if least else ""


def _plain(number: object) -> str:
    return str(number).removesuffix(".0")
