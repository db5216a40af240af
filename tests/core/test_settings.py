"""Settings are read from the environment and refused before anything connects."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from core.errors import SettingsError
from core.sections import describe, load
from core.settings import ApiSettings, EmbeddedSettings, ProcessSettings


def test_defaults() -> None:
    settings = load(ApiSettings)
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.rate_range == (0, 100)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_MAX", "5")
    monkeypatch.setenv("BROKER_URL", "nats://127.0.0.2:4222")
    monkeypatch.setenv("PORT", "")
    settings = load(ApiSettings)
    assert (settings.rate_max, settings.broker_url, settings.port) == (5, "nats://127.0.0.2:4222", 8080)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("RATE_MIN", "101"),
        ("RATE_MAX", "1000000001"),
        ("SHARDS", "2"),
        ("MAX_RATES", "10001"),
        ("MAX_IN_FLIGHT", "0"),
        ("MIN_INTERVAL_S", "0.1"),
        ("CONFIRM_TIMEOUT_S", "-1"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("TOPIC", "a b"),
        ("TOPIC", "a.b"),
        ("DRAIN_S", "soon"),
        ("DISPATCH", "all"),
        ("DURABILITY", "some"),
        ("TOPICS", "0"),
        ("TOPICS", "65"),
        ("TOPIC_CHOICE", "best"),
        ("GROUPS", "counters,"),
        ("GROUPS", "counters,au dit"),
        ("GROUPS", "counters,audit,counters"),
        ("WORK_S", "-1"),
        ("WORK_CONCURRENCY", "0"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load(ApiSettings)


def test_what_may_hold_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "BROKER_URL": "redis://u:canary@h:1",
        "STORE_URL": "redis://v:canary@h:1",
        "BROKER_PASSWORD": "canary",
        "PORT": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="PORT") as refused:
        load(ApiSettings)
    assert "canary" not in str(refused.value)
    monkeypatch.setenv("PORT", "0")
    with pytest.raises(SettingsError, match="BROKER_URL and STORE_URL both name h:1") as refused:
        load(ApiSettings)
    assert "canary" not in str(refused.value)
    monkeypatch.setenv("STORE_URL", "redis://h:2")
    assert "canary" not in repr(load(ApiSettings)) + str(load(ApiSettings)) + describe(ApiSettings)


@pytest.mark.parametrize("url", ["redis+tls://127.0.0.1:6379", "rediss://127.0.0.1", "redis://u@localhost"])
def test_tls_does_not_make_one_redis_two(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BROKER_URL", url)
    monkeypatch.setenv("BROKER_PASSWORD", "p")
    with pytest.raises(SettingsError, match="one address for both is refused"):
        load(ApiSettings)


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("SHARDS", "2")
    with pytest.raises(SettingsError, match=r"(?s)SHARDS.*PORT"):
        load(ApiSettings)


def test_settings_cannot_be_changed() -> None:
    settings = load(EmbeddedSettings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"GROUP": "audit"}, "GROUP audit is not one of GROUPS counters"),
        ({"GROUPS": "audit,b", "GROUP": "counters"}, "GROUP counters is not one of GROUPS audit,b"),
        ({"READ_TOPICS": "1"}, "READ_TOPICS 1: only with DISPATCH=topics"),
        ({"READ_TOPICS": "1,4", "DISPATCH": "topics"}, "READ_TOPICS 1,4: the topics are 1 to 3"),
        ({"READ_TOPICS": "0", "DISPATCH": "topics"}, "READ_TOPICS 0: the topics are 1 to 3"),
        ({"READ_TOPICS": "1,,2", "DISPATCH": "topics"}, "READ_TOPICS"),
        ({"DISPATCH": "inline"}, "DISPATCH=inline"),
        ({"WORK_S": "1"}, "10000 s, at most 1500 s"),
        ({"WORK_S": "1", "MAX_RATES": "1501"}, "MAX_RATES 1501 x WORK_S 1 / WORK_CONCURRENCY 1"),
        ({"WORK_S": "1", "MAX_RATES": "600", "DISPATCH": "topics"}, "1 x 3 topics: a batch would take 1800 s"),
        ({"WORK_S": "1", "MAX_RATES": "800", "DISPATCH": "topics", "READ_TOPICS": "1,3"}, "x 2 topics"),
    ],
)
def test_settings_of_a_process_that_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], said: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=re.escape(said)):
        load(ProcessSettings)


@pytest.mark.parametrize("section", [ApiSettings, ProcessSettings])
def test_more_replicas_than_the_store_has_are_refused(
    monkeypatch: pytest.MonkeyPatch, section: type[ApiSettings | ProcessSettings]
) -> None:
    monkeypatch.setenv("STORE_REPLICAS", "2")
    assert load(section).store_replicas == 2, "one address may stand for several servers"
    monkeypatch.setenv("STORE_URL", "redis://a:6379,b:6379/0")
    with pytest.raises(SettingsError, match=r"STORE_REPLICAS 2: STORE_URL names 2, .* at most 1"):
        load(section)
    monkeypatch.setenv("STORE_URL", "redis://a,b,c/0")
    assert load(section).store.hosts == (("a", 0), ("b", 0), ("c", 0))


def test_the_longest_work_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORK_S": "1", "MAX_RATES": "6000", "WORK_CONCURRENCY": "4"}.items():
        monkeypatch.setenv(name, value)
    for section in (ApiSettings, ProcessSettings, EmbeddedSettings):
        assert load(section).work_s == 1


def test_topics_that_a_process_does_not_read_take_none_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORK_S": "1", "MAX_RATES": "800", "DISPATCH": "topics", "READ_TOPICS": "2"}.items():
        monkeypatch.setenv(name, value)
    assert load(ProcessSettings).read_topic_names == ["rates_2"]


@pytest.mark.parametrize("section", [ApiSettings, ProcessSettings])
def test_a_horizon_beyond_what_kafka_keeps_is_refused(
    monkeypatch: pytest.MonkeyPatch, section: type[ApiSettings | ProcessSettings]
) -> None:
    monkeypatch.setenv("HORIZON_S", "604801")
    assert load(section).horizon_s == 604_801
    monkeypatch.setenv("BROKER_URL", "kafka://127.0.0.1:9092")
    with pytest.raises(SettingsError, match=r"HORIZON_S 604801 and BROKER_URL kafka://.* at most 604800"):
        load(section)
    monkeypatch.setenv("HORIZON_S", "604800")
    assert load(section).horizon_s == 604_800


@pytest.mark.parametrize(
    ("broker_url", "store_url", "same"),
    [
        ("redis://127.0.0.1:6379/1", "redis://127.0.0.1:6379/0", True),
        ("redis://127.0.0.1", "redis://127.0.0.1:6379/0", True),
        ("redis://localhost:6380", "redis://127.0.0.1:6380/3", True),
        ("redis://LOCALHOST", "redis://user:secret@localhost/2", True),
        ("redis://127.0.0.1:6380/0", "redis://127.0.0.1:6379/0", False),
        ("redis://127.0.0.2:6379/0", "redis://127.0.0.1:6379/0", False),
        ("nats://127.0.0.1:6379", "redis://127.0.0.1:6379/0", False),
    ],
)
def test_one_redis_for_both_is_refused(
    monkeypatch: pytest.MonkeyPatch, broker_url: str, store_url: str, same: bool
) -> None:
    monkeypatch.setenv("BROKER_URL", broker_url)
    monkeypatch.setenv("STORE_URL", store_url)
    for section in (ApiSettings, ProcessSettings):
        if same:
            with pytest.raises(SettingsError, match="one address for both is refused"):
                load(section)
        else:
            assert load(section).broker_url == broker_url


def test_topics_and_groups_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(ProcessSettings)
    assert (settings.group_name, settings.read_topic_names) == ("counters", ["rates"])
    for name, value in {"DISPATCH": "topics", "TOPICS": "12", "GROUPS": "one,two", "TOPIC": "t"}.items():
        monkeypatch.setenv(name, value)
    settings = load(ProcessSettings)
    assert (settings.group_name, settings.group_names) == ("one", ["one", "two"])
    assert settings.read_topic_names == [f"t_{number}" for number in range(1, 13)]
    monkeypatch.setenv("READ_TOPICS", "12,2,2")
    monkeypatch.setenv("GROUP", "two")
    settings = load(ProcessSettings)
    assert (settings.group_name, settings.read_topic_names) == ("two", ["t_2", "t_12"])


def test_the_embedded_service_keeps_nothing_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABILITY", "fsync")
    with pytest.raises(SettingsError, match="DURABILITY=fsync"):
        load(EmbeddedSettings)


@pytest.mark.parametrize("section", [ApiSettings, ProcessSettings, EmbeddedSettings])
def test_every_setting_is_described(section: type[ApiSettings]) -> None:
    described = describe(section)
    for name in section.model_fields:
        assert f" {name.upper()} " in described


@pytest.mark.parametrize("module", ["api", "process"])
@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        (["--help"], {}, 0, "BROKER_URL"),
        (["--nonsense"], {}, 2, "--nonsense"),
        ([], {"SHARDS": "2"}, 2, "SHARDS"),
        ([], {"BROKER_URL": "memory://"}, 2, "make run"),
        ([], {"BROKER_URL": "carrier-pigeon://x"}, 2, "carrier-pigeon"),
        ([], {"STORE_URL": "mysql://x"}, 2, "STORE_URL"),
        ([], {"HOST": "192.0.2.1"}, 1, "192.0.2.1"),
    ],
)
def test_programs_say_what_is_wrong(
    module: str, arguments: list[str], env: dict[str, str], code: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_batch_larger_than_the_broker_takes_is_refused_at_the_start() -> None:
    env = {"MAX_BATCH_BYTES": str(2**21), "PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "api"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "MAX_BATCH_BYTES" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        ([], {"DISPATCH": "inline"}, "DISPATCH=inline"),
        (["dead"], {"DISPATCH": "inline"}, "DISPATCH=inline"),
        ([], {"GROUPS": "counters,audit", "GROUP": "audit"}, "only counters, the first of GROUPS, counts"),
        (["--sink", "audit", "--file", "a.ndjson"], {}, "GROUPS=counters,audit GROUP=audit"),
        (["--sink", "audit", "--file", "a.ndjson"], {"GROUPS": "counters,audit"}, "GROUP=audit"),
        (["--sink", "audit"], {"GROUPS": "counters,audit", "GROUP": "audit"}, "--file FILE"),
        (["--file", "a.ndjson"], {}, "--sink audit"),
        (
            ["--sink", "audit", "--file", "/nowhere/a.ndjson"],
            {"GROUPS": "counters,audit", "GROUP": "audit"},
            "/nowhere/a.ndjson: No such file",
        ),
    ],
)
def test_a_process_in_the_wrong_group(arguments: list[str], env: dict[str, str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "process", *arguments], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
