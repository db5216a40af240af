"""Configuration files: the templates in nginx/, with `{{ name }}` filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from core.http import BODY_TIMEOUT_S, HEADER_TIMEOUT_S, MAX_BODY_BYTES
from stack.ports import HOST

Balancer = Literal["nginx-plain", "nginx-tuned", "nginx-random"]

MAX_WORKERS: Final = 2

_TEMPLATES: Final[dict[Balancer, tuple[str, str]]] = {
    "nginx-plain": ("nginx-plain", ""),
    "nginx-tuned": ("nginx-tuned", "least_conn"),
    "nginx-random": ("nginx-tuned", "random two least_conn"),
}
"""Balancer -> its template, and how that chooses a replica."""


def nginx_configuration(balancer: Balancer, port: int, upstream_ports: Sequence[int], folder: Path) -> str:
    """The text of nginx.conf: listens on `port`, forwards to `upstream_ports`, keeps all its files in `folder`."""
    template, choice = _TEMPLATES[balancer]
    values = {
        "choice": choice,
        "problem_words": _text("problem-words").splitlines(),
        "problem_pages": _text("problem-pages").splitlines(),
        "user": "user root root;" if os.geteuid() == 0 else "",
        "workers": str(min(MAX_WORKERS, os.cpu_count() or 1)),
        "folder": str(folder),
        "listen": f"{HOST}:{port}",
        "servers": [f"{HOST}:{upstream}" for upstream in upstream_ports],
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
