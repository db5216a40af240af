"""Colours by name, on light and on dark ground: the same in all plots and on the page.

Brokers after Okabe and Ito, roles after Tol's muted set: told apart also by those who do not see red and green. Plots
are drawn with colours that stand for names, and those are put in their place afterwards, so that one drawing serves
light and dark.
"""

from __future__ import annotations

import re
from typing import Final

COLOURS: Final[dict[str, tuple[str, str]]] = {
    "paper": ("#fdfdfb", "#16181b"),
    "ink": ("#1d1f21", "#e4e3df"),
    "soft": ("#5c6166", "#a3a8ad"),
    "rule": ("#d9d8d2", "#3a3e43"),
    "accent": ("#1f4e79", "#9cc3e6"),
    "other": ("#a8abae", "#6d7378"),
    "warn": ("#9b2c1f", "#f2a093"),
    "nats": ("#0072b2", "#56b4e9"),
    "nats-core": ("#7a9cc6", "#8fb0d9"),
    "kafka": ("#d55e00", "#f0914d"),
    "rabbit": ("#00846a", "#3cc9a3"),
    "redis": ("#aa4499", "#dd8fcf"),
    "role-api": ("#332288", "#8e82e3"),
    "role-balancer": ("#b89f3a", "#ddcc77"),
    "role-broker": ("#44aa99", "#44aa99"),
    "role-process": ("#882255", "#cc6699"),
    "role-redis": ("#cc6677", "#e29aa4"),
    "role-other": ("#88ccee", "#88ccee"),
}
"""Name -> on light, on dark."""
_MARK: Final = "#a5"
_MARKED: Final = re.compile(_MARK + r"([0-9a-f]{4})\b")
_NAMES: Final = list(COLOURS)


def stand_in(name: str) -> str:
    """The colour to draw with."""
    return f"{_MARK}{_NAMES.index(name):04x}"


def placed(svg: str) -> str:
    """A drawing whose colours are names: `var(--nats)`."""
    return _MARKED.sub(lambda found: f"var(--{_NAMES[int(found[1], 16)]})", svg)


def variables(dark: bool) -> str:
    """All names as CSS."""
    return " ".join(f"--{name}: {colours[dark]};" for name, colours in COLOURS.items())


def broker(name: str) -> str:
    """The name of a broker's colour."""
    return name.replace("+", "-")


def role(name: str) -> str:
    """The name of a role's colour."""
    return f"role-{name}" if f"role-{name}" in COLOURS else "role-other"
