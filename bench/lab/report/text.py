"""Numbers and lists as people read them. Groups of three are kept together by spaces that do not break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bench.lab.figures import Figure
from bench.lab.rows import Spread

SPACE: Final = "\N{NO-BREAK SPACE}"
MISSING: Final = "\N{EN DASH}"
Tell = Callable[[float], str]
_KILO, _MEGA = 1_000, 1_000_000


def number(value: float) -> str:
    """Three digits at least: `0.52`, `4.75`, `51.1`, `1 234 567`."""
    size = abs(value)
    digits = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}".replace(",", SPACE)


def megabytes(value: float) -> str:
    """Of bytes."""
    return number(value / _MEGA)


def rounded(value: float) -> str:
    """For a figure of thousands, of which three digits are as much as is known."""
    return number(round(value, -2 if value >= 10 * _KILO else -1 if value >= _KILO else 0))


def percent(share: float) -> str:
    """`0.12` as `12 %`."""
    size = 100 * abs(share)
    return f"{size:.0f}{SPACE}%" if size >= 1 else f"{size:.1f}{SPACE}%"


def times(ratio: float) -> str:
    """`4.2 x`, with the sign for it."""
    return f"{ratio:.{2 if ratio < 2 else 1 if ratio < 20 else 0}f}{SPACE}\N{MULTIPLICATION SIGN}"


def value_of(figure: Figure) -> Tell:
    """How values of a figure are told, without the unit."""
    if figure.unit == "bytes":
        return megabytes
    return rounded if figure.unit == "/s" else number


def unit_of(figure: Figure) -> str:
    """As it stands behind a value."""
    return {"bytes": "MB", "/s": "rates/s", "µs": "µs per rate"}.get(figure.unit, figure.unit)


def middle(spread: Spread | None, tell: Tell = number) -> str:
    """The median."""
    return tell(spread.median) if spread else MISSING


def within(spread: Spread | None, tell: Tell = number) -> str:
    """The range, nothing of a single turn."""
    if spread is None or len(spread.values) < 2:
        return ""
    low, high = tell(spread.low), tell(spread.high)
    return f"{low}\N{EN DASH}{high}" if low != high else low


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def plural(count: int, singular: str, several: str = "") -> str:
    """`1 row`, `2 rows`."""
    return f"{number(count)} {singular if count == 1 else several or singular + 's'}"
