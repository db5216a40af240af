"""Where a server is and how to come in: read from URL and settings, and shown to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.endpoints import Access, Endpoint
from core.errors import EntryRefused, SettingsError

CANARY = "canary-9f"


@pytest.mark.parametrize(
    ("url", "scheme", "tls", "hosts", "path"),
    [
        ("nats://host", "nats", False, (("host", 0),), ""),
        ("nats+tls://host:4223", "nats", True, (("host", 4223),), ""),
        ("nats+core://a,b:1", "nats+core", False, (("a", 0), ("b", 1)), ""),
        ("nats+core+tls://a", "nats+core", True, (("a", 0),), ""),
        ("tls://a", "nats", True, (("a", 0),), ""),
        ("amqps://a/", "amqp", True, (("a", 0),), ""),
        ("amqp://a/%2Fhost", "amqp", False, (("a", 0),), "/host"),
        ("rediss://a/3", "redis", True, (("a", 0),), "3"),
        ("redis://[::1]:6380/0", "redis", False, (("::1", 6380),), "0"),
        ("kafka://HOST.example:9092", "kafka", False, (("host.example", 9092),), ""),
        ("sqlite:////var/rates@home.db", "sqlite", False, (), "/var/rates@home.db"),
        ("memory://", "memory", False, (), ""),
    ],
)
def test_what_a_url_says(url: str, scheme: str, tls: bool, hosts: tuple[tuple[str, int], ...], path: str) -> None:
    found = Endpoint.of(url)
    assert (found.scheme, found.tls, found.hosts, found.path) == (scheme, tls, hosts, path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"nats://u:{CANARY}@host:4222", "host:4222"),
        (f"kafka://u:{CANARY}@a:1,b:2,[::1]:3", "a:1,b:2,[::1]:3"),
        (f"redis://:{CANARY}@host/3", "host"),
        ("memory://", "memory://"),
    ],
)
def test_only_hosts_are_shown(url: str, shown: str) -> None:
    found = Endpoint.of(url)
    assert str(found) == shown
    assert CANARY not in f"{found!r} {found} {found.access!r} {[found]} {found.credentials}"
    assert found.password() == (CANARY if CANARY in url else "")


def test_user_and_password_are_in_percent_code() -> None:
    found = Endpoint.of("amqp://us%40er:p%3A%25%2Fss@host/")
    assert (found.user, found.password()) == ("us@er", "p:%/ss")


@pytest.mark.parametrize(
    "url",
    [
        CANARY,
        f"//{CANARY}@host",
        f"nats://u:{CANARY}@a:1,u:{CANARY}@b:2",
        f"nats://u:{CANARY}\udce4@host",
        f"user:{CANARY}@host:1",
        f"{CANARY}_://host",
        f"nats://user:{CANARY}@",
        f"nats://user:{CANARY}/x@host",
        f"nats://user:1234/{CANARY}@host",
        f"nats://user:12#{CANARY}@host",
        f"nats://user:1?{CANARY}@host",
        f"nats://user:{CANARY}@x@host:port",
        f"nats://{CANARY}:99999",
        f"nats://u:p@[{CANARY}",
        f"nats://u:p@{CANARY}..b",
        f"nats://u:{CANARY}@host,",
        f"nats://host#{CANARY}",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="BROKER_URL") as refused:
        Endpoint.of(url)
    assert CANARY not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "access", "said"),
    [
        ("nats://u:p@h", {"user": "v"}, "BROKER_URL and BROKER_USER each give a user"),
        ("nats://u:p@h", {"password": CANARY}, "BROKER_URL and BROKER_PASSWORD each give a password"),
        (
            "nats://h",
            {"user": "u", "password": CANARY, "password_file": "f"},
            "BROKER_PASSWORD and BROKER_PASSWORD_FILE each give a password",
        ),
        ("nats://u@h", {}, "BROKER_URL: a user without a password; BROKER_PASSWORD or BROKER_PASSWORD_FILE gives it"),
        ("nats://h", {"user": "u"}, "BROKER_USER: a user without a password"),
        ("nats://h", {"ca_file": "ca.pem"}, r"BROKER_CA_FILE: BROKER_URL asks for no TLS; nats\+tls:// does"),
        ("nats+tls://h", {"ca_file": "/no/ca.pem"}, "BROKER_CA_FILE /no/ca.pem: No such file"),
        ("nats://h", {"user": "u", "password_file": "/no/file"}, "BROKER_PASSWORD_FILE /no/file: No such file"),
        ("sqlite+tls:///file", {}, "BROKER_URL: names no host"),
    ],
)
def test_what_contradicts_itself_or_cannot_be_used_is_refused_by_name(
    url: str, access: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Endpoint.of(url, Access(**access))  # type: ignore[arg-type]
    assert CANARY not in str(refused.value)


def test_user_and_password_may_come_by_different_ways(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{CANARY}\r\n")
    found = Endpoint.of("nats://u@h", Access(password_file=str(file)))
    assert (found.user, found.password()) == ("u", CANARY)
    assert found.credentials == ("BROKER_URL", "BROKER_PASSWORD_FILE")
    file.write_text("another")
    assert found.password() == "another"
    file.write_text("")
    with pytest.raises(EntryRefused, match="is empty"):
        found.password()


@pytest.mark.parametrize(
    ("url", "asked", "said"),
    [
        ("nats://h?x=1", {}, "question mark"),
        ("nats://h/x", {}, "nothing behind the host"),
        ("redis://a,b", {"several": False}, "takes one host"),
        ("kafka://:p@h", {"user": False}, "BROKER_URL: a password without a user"),
    ],
)
def test_an_adapter_overlooks_nothing(url: str, asked: dict[str, bool], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Endpoint.of(url).plain(**asked)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("nats://u:p@10.0.0.1", True),
        ("nats://u:p@127.0.0.1,broker.example", True),
        ("nats://u:p@127.9.9.9,localhost,[::1]", False),
        ("nats+tls://u:p@10.0.0.1", False),
        ("nats://10.0.0.1", False),
    ],
)
def test_a_password_that_others_could_overhear_is_warned_of(url: str, warned: bool) -> None:
    with capture_logs() as logs:
        Endpoint.of(url).warn_if_overheard()
    assert [line["event"] for line in logs] == ["password_unprotected"] * warned
    assert not warned or "nats+tls://" in logs[0]["meaning"]


def test_what_a_server_repeats_of_a_password_is_taken_out() -> None:
    found = Endpoint.of(f"redis://u:{CANARY}@h")
    assert found.without_secrets(f"unknown command AUTH u {CANARY}") == "unknown command AUTH u ***"
