"""The report as files: whole, self-contained, the same from the same runs, whatever is missing."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from bench import commands as command
from bench.lab.document import Run, Setup, Workload
from bench.lab.report import markdown, page, palette
from bench.lab.report.plots import numbered
from bench.lab.report.sections import Report, Section, report
from bench.lab.report.tables import Table
from tests.bench.lab.documents import Maker, brokers, matrix, peers, scale, without_figures

SVG = "{http://www.w3.org/2000/svg}"


def _every() -> list[Run]:
    maker = Maker(1)
    for experiment in (brokers, peers, scale, matrix):
        experiment(maker, turns=2)
    return maker.made


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return _every()


@pytest.fixture(scope="module")
def made(runs: list[Run]) -> Report:
    return report(runs)


@pytest.fixture(scope="module")
def html(made: Report) -> str:
    return page.html(made)


def test_each_series_is_a_section_the_known_experiments_first(made: Report) -> None:
    assert [section.title for section in made.sections] == [
        "Brokers",
        "Peers",
        "Scale: connections",
        "Scale: offered load",
        "Scale: rates per request",
        "Scale: replicas",
        "Scale: subjects",
        "Matrix",
    ]


def test_each_kind_of_series_has_its_plots(made: Report) -> None:
    drawn = {
        section.title: [plot.name.removeprefix(section.name + "-") for plot in section.plots]
        for section in made.sections
    }
    by_row = ["rps", "cpu", "latency", "freshness", "memory"]
    assert drawn["Brokers"] == drawn["Peers"] == drawn["Matrix"] == by_row
    assert drawn["Scale: offered load"] == ["hockey"]
    assert drawn["Scale: connections"] == drawn["Scale: replicas"] == ["rps", "cost", "p99", "freshness", "memory"]


def test_the_page_fetches_nothing_and_runs_nothing(html: str) -> None:
    references = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", html))
    assert references <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<script|<link|<img|<iframe|@import|\ssrc=", html)
    assert set(re.findall(r"(?:url\(|href=\")(.)", html)) == {"#"}


def test_names_on_the_page_are_unique_and_all_that_is_referred_to_is_there(html: str) -> None:
    names = re.findall(r'\sid="([^"]+)"', html)
    assert len(names) == len(set(names))
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
    assert {one or other for one, other in referred} <= set(names)
    labelled = {name for several in re.findall(r'aria-labelledby="([^"]+)"', html) for name in several.split()}
    assert labelled <= set(names)


def test_colours_are_names_that_the_page_knows_for_light_and_dark(html: str) -> None:
    used = set(re.findall(r"var\(--([a-z-]+)\)", html)) - {"sans"}
    assert used <= set(palette.COLOURS)
    for ground in (palette.variables(dark=False), palette.variables(dark=True)):
        assert ground in html
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", drawings)


def test_every_table_has_a_caption_and_heads(html: str) -> None:
    tables = re.findall(r"<table>.*?</table>", html, re.DOTALL)
    assert len(tables) > 30
    for table in tables:
        assert "<caption>" in table
        columns = table.count('<th scope="col"')
        rows = table.count('<th scope="row"')
        assert columns + rows + table.count("<td") == columns * (rows + 1)


def test_every_plot_is_told_in_words_and_its_text_is_text(made: Report) -> None:
    for plot in (plot for section in made.sections for plot in section.plots):
        for text in (plot.inline, plot.alone):
            root = ElementTree.fromstring(text)  # noqa: S314 # our own drawing
            first, second = list(root)[:2]
            assert (first.tag, second.tag) == (f"{SVG}title", f"{SVG}desc")
            assert first.text
            assert second.text
            assert len(root.findall(f".//{SVG}text")) > 3
            assert float(root.get("viewBox", "").split()[2]) <= 504


def test_plots_of_their_own_have_their_colours_with_them(made: Report) -> None:
    plot = made.sections[0].plots[0]
    assert "prefers-color-scheme: dark" in plot.alone
    assert "prefers-color-scheme" not in plot.inline


def test_what_a_plot_writes_out_stands_in_a_table_too(made: Report) -> None:
    section = made.sections[0]
    written = re.findall(r"<text[^>]*>([\d\N{NO-BREAK SPACE}]+)</text>", section.plots[0].inline)
    cells = {cell for table in section.tables for row in table.rows for cell in row}
    assert len(written) == 16
    assert set(written) <= cells


def test_latency_is_never_that_of_a_closed_loop(made: Report) -> None:
    runs = brokers(Maker(1, tails=False), turns=2).made
    without = report(runs)
    assert not any("latency" in plot.name for section in without.sections for plot in section.plots)
    assert "Latency was not measured here." in without.sections[0].words
    assert not any("p99" in column.title for table in without.sections[0].tables for column in table.columns)


def test_the_same_runs_give_the_same_bytes(runs: list[Run], html: str, made: Report) -> None:
    again = report(random.Random(4).sample(runs, len(runs)))
    assert page.html(again) == html
    assert markdown.markdown(again) == markdown.markdown(made)
    assert [plot.alone for section in again.sections for plot in section.plots] == [
        plot.alone for section in made.sections for plot in section.plots
    ]


@pytest.mark.parametrize(
    "few",
    [
        lambda: Maker(1).rows("x", "x", [(Setup(broker="nats"), Workload())], 1).made,
        lambda: Maker(1, tails=False).rows("x", "x", [(Setup(broker="nats"), Workload(offered=()))], 2).made,
        lambda: [without_figures(run, "skipped", "no server") for run in brokers(Maker(1), turns=1).made],
        lambda: [run for run in peers(Maker(1), turns=1).made if run.setup.system != "fanrate"],
        lambda: [msgspec.structs.replace(run, peak=None) for run in brokers(Maker(1), turns=1).made],
        lambda: [msgspec.structs.replace(run, holding=None, ledger=None) for run in matrix(Maker(1), turns=1).made],
        lambda: [msgspec.structs.replace(run, memory_peak_bytes={}) for run in scale(Maker(1), turns=1).made],
    ],
    ids=["one run", "no tails", "all skipped", "peers alone", "no peaks", "no ledgers", "no memory"],
)
def test_what_is_missing_is_left_out_or_said(few: Callable[[], list[Run]]) -> None:
    made = report(few())
    assert "What to choose" in page.html(made)
    assert markdown.markdown(made).count("\n## ") == 2 + len(made.sections)


def test_skipped_and_failed_rows_are_listed_with_their_reasons(made: Report) -> None:
    troubles = made.sections[1].troubles
    assert troubles is not None
    assert troubles.rows[0][-1] == "the Go toolchain is missing: apt-get install golang"
    assert made.sections[0].troubles is None


def test_loads_that_the_generator_did_not_keep_are_listed_and_missing_in_the_words() -> None:
    made = [_late(run) if run.setup.broker == "kafka" else run for run in brokers(Maker(1), turns=2).made]
    drawn = report(made)
    troubles = drawn.sections[0].troubles
    assert troubles is not None
    assert len(troubles.rows) == 4
    assert troubles.rows[0][-1] == "at 50\N{NO-BREAK SPACE}% of the peak: the generator itself was late"
    said = {answer.question: " ".join(answer.sentences) for answer in drawn.answers}
    assert "Of Kafka it was not measured." in said["Lowest latency of a POST"]
    assert "not measured" not in said["Most rates per second"]


def test_void_loads_are_told_with_their_reason_and_failures_below_the_bound_beside_the_latency() -> None:
    shares = (0.25, 0.5, 0.8, 1.2)
    made = Maker(1).rows("x", "x", [(Setup(broker="nats"), Workload(offered=shares))], 2).made
    spoilt = {1.2: {"unsent": 1234}, 0.8: {"failed": 60_000}, 0.25: {"failed": 3}}
    overload = "more was offered than it takes: 1,234 requests found no free connection"
    section = report([_with_tails(run, spoilt) for run in made]).sections[0]
    assert section.troubles is not None
    assert [row[-2:] for row in section.troubles.rows] == [
        ["2", "at 80\N{NO-BREAK SPACE}% of the peak: 60,000 requests were not confirmed"],
        [
            "2",
            f"at 120\N{NO-BREAK SPACE}% of the peak: {overload}",
        ],
    ]
    percents = "80\N{NO-BREAK SPACE}% and 120\N{NO-BREAK SPACE}%"
    assert any(
        f"so no latency is told, at so much of the peak: NATS JetStream {percents}." in text for text in section.words
    )
    latencies = _latencies(section)
    assert [column.title for column in latencies.columns][-2:] == ["not confirmed", "turns"]
    assert [row[-2:] for row in latencies.rows] == [["6", "2"], ["0", "2"]]


@pytest.mark.parametrize(("overloaded", "counting"), [(1, "2"), (2, None)])
def test_a_load_that_was_too_much_in_most_turns_is_not_told_by_the_others(
    overloaded: int, counting: str | None
) -> None:
    made = Maker(1).rows("x", "x", [(Setup(broker="nats"), Workload(offered=(0.5, 1.0)))], 3).made
    spoilt = [_with_tails(run, {1.0: {"unsent": 9}}) for run in made[:overloaded]]
    section = report([*spoilt, *made[overloaded:]]).sections[0]
    told = {row[1]: row[-1] for row in _latencies(section).rows}
    full = "100\N{NO-BREAK SPACE}%"
    assert told.get(full) == counting
    assert any(f"NATS JetStream {full}" in text for text in section.words) is (counting is None)
    assert section.troubles is not None


def _latencies(section: Section) -> Table:
    (table,) = (table for table in section.tables if table.caption == "Latency on a schedule")
    return table


def test_what_all_rows_have_in_common_is_told_once() -> None:
    setups = [Setup(broker=name, settings="HOT_ROUTE=false", balancer="nginx-tuned") for name in ("nats", "kafka")]
    work = Workload(connections=256, seconds=6, consumers="frozen")
    made = Maker(1).rows("x", "x", [(setup, work) for setup in setups], 2).made
    (said,) = (text for text in report(made).sections[0].words if text.startswith("In all rows"))
    for each in ("Fanrate", "durability confirmed", "balancer nginx-tuned", "HOT_ROUTE=false", "256 connections"):
        assert each in said
    assert "loads of 6" in said
    assert "consumers standing still" in said
    assert "Kafka" not in said


def test_rows_that_are_too_many_for_plots_are_said_to_be() -> None:
    setups = [Setup(broker="nats", replicas=n, processes=m) for n in range(1, 8) for m in range(1, 8)]
    made = Maker(1).rows("x", "x", [(setup, Workload()) for setup in setups], 1).made
    section = report(made).sections[0]
    assert not section.plots
    assert "49 rows are too many for plots." in section.words


def test_a_peak_under_which_wrk_had_no_time_left_is_named() -> None:
    run = Maker(1).run("x", "x", Setup(broker="nats"), Workload())
    assert run.peak is not None
    spent = {**run.peak.cpu_us_per_rate, "load": 0.97e6 / run.peak.rates_per_s}
    busy = msgspec.structs.replace(run, peak=msgspec.structs.replace(run.peak, cpu_us_per_rate=spent))
    assert not [text for text in report([run]).sections[0].words if "wrk" in text]
    assert (
        "wrk was as busy as it can be under NATS JetStream, so these may take more." in report([busy]).sections[0].words
    )


def _with_tails(run: Run, spoilt: dict[float, dict[str, int]]) -> Run:
    tails = [msgspec.structs.replace(tail, **spoilt.get(tail.offered, {})) for tail in run.tails]
    return msgspec.structs.replace(run, tails=tails)


def _late(run: Run) -> Run:
    return msgspec.structs.replace(run, tails=[msgspec.structs.replace(tail, fell_behind=True) for tail in run.tails])


def test_text_from_documents_is_no_markup() -> None:
    run = Maker(1).run("<b>x", "<i>y", Setup(broker="nats", settings="A=<script>"), Workload())
    made = report([run, without_figures(run, "failed", "a|b <script>alert(1)</script>")])
    assert "<script>" not in page.html(made)
    assert "a\\|b" in markdown.markdown(made)


def test_names_that_look_alike_stay_apart() -> None:
    assert list(numbered(["A b", "a-b", "c", "!"])) == ["a-b", "a-b-2", "c", "series"]


def test_the_command_writes_page_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = brokers(Maker(1), turns=1, names=["nats"]).write(tmp_path / "runs" / "a")
    second = matrix(Maker(2), turns=1).write(tmp_path / "runs" / "b")
    out, beside = tmp_path / "deep" / "report.html", tmp_path / "docs"
    assert command.main(["report", str(first), str(second), "--out", str(out), "--markdown", str(beside)]) == 0
    assert str(out) in capsys.readouterr().out
    text = (beside / "results.md").read_text()
    pictures = re.findall(r"\]\((plots/[^)]+)\)", text)
    assert sorted(pictures) == sorted(f"plots/{path.name}" for path in (beside / "plots").iterdir())
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_bad_input_is_named_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("[]")
    assert command.main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 2
    assert "x.json is not the document of a run" in capsys.readouterr().err
    assert command.main(["report", str(tmp_path / "none"), "--out", str(tmp_path / "r.html")]) == 2
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
