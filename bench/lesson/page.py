"""The page: what wrk printed in each row, beside what the lesson found, and why they differ."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Final

from bench.lesson import words
from bench.lesson.plan import Section
from bench.lesson.results import Results, Taken

WIDTH: Final = 118

TITLES: Final[dict[Section, str]] = {
    "one": "One server",
    "request": "Each request publishes by itself",
    "linger": "Where 4.91 comes from",
    "three": "Three servers behind plain round robin",
    "handler": "A handler per message",
    "topics": "Three topics",
}


def page(results: Results, facts: Mapping[str, object]) -> str:
    """The whole page, in Markdown; `facts` are those of `bench.machine`."""
    sections = [line for section in TITLES for line in _section(section, results)]
    lines = [
        "# The lesson that this project grew from",
        "",
        *_filled(words.INTRODUCTION),
        *_table(results),
        "",
        *_filled(words.CLOSED_LOOP),
        *sections,
        *_method(results, facts),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(results: Results) -> Iterator[str]:
    yield "| row | the lesson, requests/s | here, requests/s | the lesson, wrk's mean | here, wrk's mean | ledger |"
    yield "|---|---|---|---|---|---|"
    for section in TITLES:
        for taken in _of(section, results):
            told = taken.row.lesson
            cells = (
                taken.row.title,
                words.number(told.per_s) if told else "",
                words.number(taken.peak.per_s),
                words.duration(told.mean_s) if told and told.mean_s else "",
                words.duration(taken.mean_s) if taken.mean_s else "",
                taken.told,
            )
            yield f"| {' | '.join(cells)} |"
    for title, reason in results.skipped.items():
        yield f"| {title} | | skipped: {_one_line(reason)} | | | |"
    for title, reason in results.failed.items():
        yield f"| {title} | | failed: {_one_line(reason)} | | | |"


def _section(section: Section, results: Results) -> Iterator[str]:
    """Its explanation and its blocks; nothing if none of its rows was measured."""
    taken = _of(section, results)
    if not taken:
        return
    yield from (f"## {TITLES[section]}", "")
    for paragraph in words.EXPLAINED[section](results):
        yield from _filled(paragraph)
    for each in taken:
        yield from (f"{each.row.title[0].upper()}{each.row.title[1:]}:", "")
        yield from ("```text", each.command, each.block, "```", "")


def _of(section: Section, results: Results) -> list[Taken]:
    return [taken for taken in results.taken.values() if taken.row.section == section]


def _method(results: Results, facts: Mapping[str, object]) -> Iterator[str]:
    yield from ("## How it was measured", "")
    yield from _filled(words.METHOD.format(seconds=f"{results.seconds:g}"))
    told = {name: value for name, value in facts.items() if name != "versions"}
    yield from _filled(f"Machine: {', '.join(f'{name} {_shown(value)}' for name, value in told.items())}.")
    versions = facts.get("versions")
    if isinstance(versions, Mapping):
        yield from _filled(f"Versions: {', '.join(f'{name} {value}' for name, value in versions.items())}.")
    mean, most = results.stolen
    yield from _filled(words.STOLEN.format(mean=mean, most=most))
    yield from _filled(_ledgers(results))
    if results.interrupted:
        yield from _filled("It was interrupted: the rows that are missing were not measured.")


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _ledgers(results: Results) -> str:
    verdicts = [taken.verdict for taken in results.taken.values()]
    confirmed, loss, dup = (sum(getattr(each, name) for each in verdicts) for name in ("confirmed", "loss", "dup"))
    return f"{len(verdicts)} rows, {words.number(confirmed)} rates answered 200 and counted: LOSS {loss} DUP {dup}."


def _filled(text: str) -> list[str]:
    """A paragraph, with the empty line after it."""
    return [*textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False), ""]


def _one_line(text: str) -> str:
    """The first line of a reason: what follows may be the end of a log."""
    return text.partition("\n")[0].replace("|", r"\|")
