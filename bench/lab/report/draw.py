"""Drawing the report of some folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.lab.report import markdown, page
from bench.lab.report.sections import report
from bench.lab.rows import read


def draw(folders: Sequence[Path], out: Path, beside: Path | None = None) -> list[Path]:
    """The HTML file `out`, and markdown with plots below `beside`; returns what was written. The same runs give the
    same bytes. Raises NoDocuments, BadDocument and OSError."""
    made = report(read(folders))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page.html(made), encoding="utf-8")
    return [out, *([markdown.write(made, beside)] if beside else [])]
