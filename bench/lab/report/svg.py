"""Drawing with matplotlib, and what makes its SVG fit for a page: text that is text, colours that follow light and
dark, names of its own, words for those who do not see it; and the same bytes from the same figures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.lab.report import palette

WIDTH: Final = 480.0
"""Of every plot, in its own units: pixels where there is room."""
SMALL: Final = 10.5
FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
"""The reader's own. It is mostly narrower than the one that places are reckoned with."""
_SETTINGS: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fanrate",
    "font.family": "DejaVu Sans",
    "font.size": SMALL,
    "axes.linewidth": 0.7,
    "path.simplify": False,
    "text.parse_math": False,
}
_HEAD: Final = re.compile(r".*?<svg[^>]*?viewBox=\"0 0 ([\d.]+) ([\d.]+)\"[^>]*>", re.DOTALL)
_META: Final = re.compile(r"\s*<metadata>.*?</metadata>|\s*<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_GROUP_ID: Final = re.compile(r' id="[a-zA-Z0-9.]+_\d+"')
_ID: Final = re.compile(r'( id="|url\(#|href="#)')
_FAMILY: Final = re.compile(r"font-family:[^;\"]*; ?")
_UNTURNED: Final = re.compile(r" transform=\"rotate\(-?0 [^)]*\)\"")
_PIXELS_PER_INCH: Final = 72


@dataclass(frozen=True, slots=True)
class Plot:
    """`name` is good for a file; `inline` for a page that has the colours, `alone` is a file of its own."""

    name: str
    title: str
    description: str
    inline: str
    alone: str


@contextmanager
def drawing(height: float) -> Iterator[Figure]:
    """A figure of WIDTH and `height`."""
    with mpl.rc_context(_SETTINGS):
        yield Figure(figsize=(WIDTH / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), dpi=_PIXELS_PER_INCH)


def finished(figure: Figure, name: str, title: str, description: str) -> Plot:
    """To be called within `drawing`."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    head = _HEAD.match(text)
    assert head is not None
    body = _META.sub("", text[head.end() :])
    body = _ID.sub(rf"\g<1>{name}-", _GROUP_ID.sub("", body))
    body = _UNTURNED.sub("", _FAMILY.sub("", body))
    body = "\n".join(line.rstrip() for line in palette.placed(body).splitlines())
    size = (float(head[1]), float(head[2]))
    inline = _whole(size, 0.0, name, (title, description), body.strip())
    return Plot(
        name, title, description, inline, _whole(size, _MARGIN, name, (title, description), _GROUND + body.strip())
    )


_MARGIN: Final = 12.0
_GROUND: Final = (
    f"<style>svg {{ {palette.variables(dark=False)} }}"
    f" @media (prefers-color-scheme: dark) {{ svg {{ {palette.variables(dark=True)} }} }}</style>\n"
    f'<rect x="-{_MARGIN:g}" y="-{_MARGIN:g}" width="100%" height="100%" fill="var(--paper)"/>\n'
)
"""With a ground of its own it can be read wherever it is shown."""


def _whole(size: tuple[float, float], margin: float, name: str, words: tuple[str, str], body: str) -> str:
    """`words` are title and description."""
    width, height = (side + 2 * margin for side in size)
    title, description = map(escape, words)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width:g}" '
        f'height="{height:g}" viewBox="{-margin:g} {-margin:g} {width:g} {height:g}" role="img" '
        f'stroke-linejoin="round" font-family="{FONT}" aria-labelledby="{name}-title {name}-desc">\n'
        f'<title id="{name}-title">{title}</title>\n<desc id="{name}-desc">{description}</desc>\n{body}\n'
    )
