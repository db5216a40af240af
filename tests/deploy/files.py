"""The compose files as this project writes them: YAML, `extends`, and no more of what compose can do than that."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BROKERS = ("kafka", "nats", "rabbit")
OLDEST_COMPOSE = (2, 33)
"""Older ones refuse `extends` of a service with depends_on, as 2.24 does, or leave depends_on out, as 2.32 does."""

Service = dict[str, Any]


def compose_file(broker: str) -> Path:
    return ROOT / f"docker-compose.{broker}.yml"


def locks_file(broker: str) -> Path:
    """What is named after the compose file for TLS and passwords."""
    return ROOT / "deploy" / "locks" / f"{broker}.yml"


@cache
def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@cache
def services(broker: str) -> dict[str, Service]:
    """All services of the file, each with what it extends."""
    path = compose_file(broker)
    return {name: service(path, name) for name in document(path)["services"]}


@cache
def locked_services(broker: str) -> dict[str, Service]:
    """The same, with the locks."""
    path, locked = locks_file(broker), dict(services(broker))
    for name in document(path)["services"]:
        locked[name] = _merged(locked[name], service(path, name, folder=ROOT))
    return locked


def service(path: Path, name: str, folder: Path | None = None) -> Service:
    """`folder` is where the paths in this file begin: its own, or that of the file before it on the command line."""
    own: Service = document(path)["services"][name]
    extends = own.get("extends")
    if extends is None:
        return own
    if isinstance(extends, str):
        extends = {"service": extends}
    base = service((folder or path.parent) / extends["file"] if "file" in extends else path, extends["service"])
    return _merged(base, {key: value for key, value in own.items() if key != "extends"})


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def image_environment() -> dict[str, str]:
    """What the image sets of our own."""
    (block,) = re.findall(r"^ENV (PATH=(?:.*\\\n)*.*)$", dockerfile(), re.MULTILINE)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


def image_version(image: str) -> tuple[int, ...]:
    """The numbers of the version behind the last colon."""
    found = re.search(r":(\d+(?:\.\d+)+)[^:]*$", image)
    assert found, f"{image} has no version"
    return tuple(map(int, found[1].split(".")))


def _merged(base: Service, own: Service) -> Service:
    """Mappings are merged; of lists that may grow both are kept, others are replaced."""
    merged = dict(base)
    for key, value in own.items():
        before = base.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[key] = _merged(before, value)
        elif key in ("volumes", "tmpfs", "networks", "ports", "secrets") and before:
            merged[key] = list(dict.fromkeys([*before, *value])) if key == "networks" else [*before, *value]
        else:
            merged[key] = value
    return merged
