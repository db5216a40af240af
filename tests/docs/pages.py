"""Reading the documentation: its tables and its console examples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Example:
    """A command as a reader would paste it, and the answer shown beneath."""

    command: str
    answer: str


def page(name: str) -> str:
    """The text of one page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table below `heading`, without its head; code marks are taken off the cells."""
    _, found, below = text.partition(f"\n## {heading}\n")
    assert found, f"there is no heading {heading!r}"
    rows = re.search(r"(?:^\|.*\|\n)+", below.partition("\n## ")[0], re.MULTILINE)
    assert rows, f"there is no table below {heading!r}"
    return [_cells(row) for row in rows[0].splitlines()[2:]]


def examples(text: str) -> list[Example]:
    """What follows each `$ ` in the page's console blocks, in order."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*[\\|]\n)*.*\n", part)
            assert command is not None
            found.append(Example(command[0].rstrip("\n"), part[command.end() :]))
    return found


def _cells(row: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", row)[1:-1]
    return [cell.strip().strip("`").replace(r"\|", "|") for cell in cells]
