"""The report as markdown, with its plots as files: for a repository's own pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.lab.report.sections import Report, Section
from bench.lab.report.svg import Plot
from bench.lab.report.tables import Table

PAGE: Final = "results.md"
PLOTS: Final = "plots"


def write(report: Report, folder: Path) -> Path:
    """The page and its plots below `folder`; returns the page. Raises OSError."""
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    for section in report.sections:
        for plot in section.plots:
            (folder / PLOTS / f"{plot.name}.svg").write_text(plot.alone, encoding="utf-8")
    page = folder / PAGE
    page.write_text(markdown(report), encoding="utf-8")
    return page


def markdown(report: Report) -> str:
    """The page. Its paragraphs are single lines: a reader's program breaks them."""
    return "\n\n".join(_blocks(report)) + "\n"


def _blocks(report: Report) -> Iterator[str]:
    yield "# Results"
    yield report.totals
    for warning in report.warnings:
        yield f"> **Warning.** {warning}"
    yield "## What to choose, and why"
    if not report.answers and not report.introduction:
        yield "Nothing was measured of Fanrate, so there is nothing to choose from."
    yield from report.introduction
    for answer in report.answers:
        yield f"**{answer.question}.** {' '.join(answer.sentences)}"
    if report.worth:
        yield "**What a 200 is worth.**"
        yield "\n".join(f"- {each}" for each in report.worth)
    yield "## How it was measured"
    yield "\n".join(f"- {name}: {value}" for name, value in report.facts)
    yield from report.method
    for section in report.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    yield from section.words
    yield from (_picture(plot) for plot in section.plots)
    made = [*section.tables, section.troubles] if section.troubles else section.tables
    for table in made:
        yield f"**{table.caption}**"
        yield _table(table)
        if table.note:
            yield table.note


def _picture(plot: Plot) -> str:
    return f"**{plot.title}**\n\n![{plot.description}]({PLOTS}/{plot.name}.svg)"


def _table(table: Table) -> str:
    head = [f"{column.title}, {column.unit}" if column.unit else column.title for column in table.columns]
    rule = ["---:" if column.figures else "---" for column in table.columns]
    return "\n".join(_line(cells) for cells in [head, rule, *table.rows])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
