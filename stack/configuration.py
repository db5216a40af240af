"""Configuration files: the templates in nginx/, with `{{ name }}` filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from core.http import BODY_TIMEOUT_S, HEADER_TIMEOUT_S, MAX_BODY_BYTES
from stack.ports import HOST

Balancer = Literal["nginx-plain", "nginx-tuned", "nginx-random", "nginx-hash"]

MAX_WORKERS: Final = 2

_TEMPLATES: Final[dict[Balancer, tuple[str, str]]] = {
    "nginx-plain": ("nginx-plain", ""),
    "nginx-tuned": ("nginx-tuned", "least_conn"),
    "nginx-random": ("nginx-tuned", "random two least_conn"),
    "nginx-hash": ("nginx-tuned", "hash $connection"),
}
"""Balancer -> its template, and how that chooses a replica."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where nginx runs. `folder` takes all its files; `servers` are the replicas, as its `server` directive names them;
    `resolver`, if any, looks their names up."""

    listen: str
    servers: Sequence[str]
    folder: Path
    workers: int = MAX_WORKERS
    user: str = ""
    resolver: Sequence[str] = ()


CONTAINER: Final = Site(
    listen="8080",
    servers=["api:8080 resolve"],
    folder=Path("/tmp"),  # noqa: S108, it is in the container's own memory
    # Docker's own name server, asked again every two seconds: replicas come and go with --scale.
    resolver=["resolver 127.0.0.11 valid=2s ipv6=off;"],
)
"""That of the compose files, for nginx 1.27.3 or newer."""


def local_site(port: int, upstream_ports: Sequence[int], folder: Path) -> Site:
    """nginx on `port` of this machine, before replicas on `upstream_ports` of it."""
    return Site(
        listen=f"{HOST}:{port}",
        servers=[f"{HOST}:{upstream}" for upstream in upstream_ports],
        folder=folder,
        workers=min(MAX_WORKERS, os.cpu_count() or 1),
        user="user root root;" if os.geteuid() == 0 else "",
    )


def nginx_configuration(balancer: Balancer, site: Site) -> str:
    """The text of nginx.conf."""
    template, choice = _TEMPLATES[balancer]
    values = {
        "choice": choice,
        "problem_words": _text("problem-words").splitlines(),
        "problem_pages": _text("problem-pages").splitlines(),
        "user": [site.user] if site.user else [],
        "workers": str(site.workers),
        "folder": str(site.folder),
        "resolver": site.resolver,
        "listen": site.listen,
        "servers": site.servers,
        "max_body_bytes": str(MAX_BODY_BYTES),
        "header_timeout": f"{HEADER_TIMEOUT_S:g}s",
        "body_timeout": f"{BODY_TIMEOUT_S:g}s",
    }
    return render(_text(template), values)


def _text(name: str) -> str:
    return files("nginx").joinpath(f"{name}.conf.template").read_text()


def render(template: str, values: Mapping[str, str | Sequence[str]]) -> str:
    """Fill in `{{ name }}`; a line that names a list is repeated for each of its items. Raises KeyError."""
    return "".join(_line(line, values) for line in template.splitlines(keepends=True))


def _line(line: str, values: Mapping[str, str | Sequence[str]]) -> str:
    found = re.search(r"\{\{ (\w+) \}\}", line)
    if found is None:
        return line
    value = values[found[1]]
    lines = [line.replace(found[0], item) for item in ([value] if isinstance(value, str) else value)]
    return "".join(_line(each, values) for each in lines)
