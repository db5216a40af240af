"""The report as one HTML file: styles, plots and words in it, and nothing that must be fetched."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench.lab.report import palette, svg
from bench.lab.report.sections import Report


def html(report: Report) -> str:
    """The same report gives the same text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    return environment.from_string(_read("page.html.j2")).render(
        report=report,
        style=Markup(_read("page.css")),  # noqa: S704 # our own file
        light=palette.variables(dark=False),
        dark=palette.variables(dark=True),
        font=Markup(svg.FONT),  # noqa: S704 # our own
    )


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
