"""Settings are read from the environment and refused before anything connects."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from core.errors import SettingsError
from core.settings import ApiSettings, EmbeddedSettings, ProcessSettings, describe, load


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
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
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
