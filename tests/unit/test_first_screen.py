"""The last output of a run: it fits 80 columns, and names every project's report."""

import re

import pytest
from rich.console import Console

from assets.run_report import print_reports, summary_lines
from assets.terminal import print_error, print_note
from pipelines.lake.derived_manifests import DerivedSummary
from pipelines.settings import ROOT
from pipelines.tables import ANALYSIS_TABLES, TABLES

SUMMARY = {
    "is_complete": True,
    "compared_with": "2026-11-22",
    "changes": {"added": 1, "changed": 13, "removed": 1},
    "findings": {"high": 21, "medium": 67, "low": 70},
    "new_findings": 11,
    "resolved_findings": 5,
    "suppressed_findings": 0,
    "images": 237,
    "total_bytes": 3 * 2**40,
    "growth_bytes": -6 * 2**30,
    "reclaimable_bytes": 2**40,
    "unmatched_references": 0,
    "estimated_cost": 12.5,
    "currency": "EUR",
    "is_priced": True,
    "unpriced": 3,
    "rule_errors": {},
}


def report(project, date="2026-11-23"):
    tables = {
        name: {"path": f"lake/{name}/dt={date}/project={project}/{name}.parquet", "rows": 250, "bytes": 1_234_567}
        for name in (*TABLES, *ANALYSIS_TABLES)
    }
    return {
        "date": date,
        "project": project,
        "state": "complete",
        "outcomes": {"ok": 236, "deleted": 6, "not_found": 13, "forbidden": 6},
        "is_sandbox": True,
        "tables": tables,
        "summary": SUMMARY,
        "report": f"lake/reports/dt={date}/project={project}/report.html",
    }


@pytest.fixture
def on_a_terminal(monkeypatch, capsys):
    """The lines printed on a terminal of 80 columns, without colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert Console().is_terminal

    def printed(action, *arguments):
        action(*arguments)
        out, err = capsys.readouterr()
        return re.sub(r"\x1b\[[0-9;]*m", "", out + err).splitlines()

    return printed


def test_first_screen_fits_80_columns_uncut(on_a_terminal):
    lines = on_a_terminal(print_reports, [report("default")])
    assert [line for line in lines if len(line) > 80] == []
    cells = [line.split("│")[2].strip() for line in lines if line.count("│") == 5]
    assert cells == [*TABLES, *ANALYSIS_TABLES]
    assert "Files: lake/TABLE/dt=2026-11-23/project=*/TABLE.parquet" in lines


def test_newest_report_of_each_project_is_named(on_a_terminal):
    lines = on_a_terminal(print_reports, [report("a", "2026-11-22"), report("a"), report("b")])
    assert [line for line in lines if line.startswith("Report")] == [
        "Report: lake/reports/dt=2026-11-23/project=a/report.html",
        "Report: lake/reports/dt=2026-11-23/project=b/report.html",
    ]


def test_piped_output_has_a_line_for_each_file(capsys):
    print_reports([report("a"), report("b")])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines() if "\t" in line]
    assert lines[0] == ["date", "project", "table", "rows", "bytes", "file"]
    assert len(lines) == 1 + 2 * len(TABLES | ANALYSIS_TABLES)


def test_sentences_wrap_on_a_terminal_but_not_in_a_log(on_a_terminal, monkeypatch, capsys):
    sentence = "The price book is missing. " * 8
    for action in (print_note, print_error):
        lines = on_a_terminal(action, sentence.strip())
        assert len(lines) > 2
        assert all(len(line) <= 80 for line in lines)
        assert " ".join(lines).removeprefix("Error: ").split() == sentence.split()
    monkeypatch.delenv("FORCE_COLOR")
    print_note(sentence.strip())
    assert capsys.readouterr().err == sentence.strip() + "\n"


@pytest.mark.parametrize(
    "changed",
    [{}, {"compared_with": None}, {"is_complete": False}, {"is_priced": False, "estimated_cost": 0.0}],
    ids=["usual", "first", "incomplete", "without-prices"],
)
def test_each_summary_line_fits_80_columns(changed):
    lines = summary_lines(DerivedSummary.model_validate(SUMMARY | changed))
    # Each line is indented by two blanks.
    assert [line for line in lines if len(line) > 78] == []


def test_registry_that_was_not_read_is_said_and_one_that_is_not_wanted_is_no_line():
    unread = dict.fromkeys(("tags", "stored_bytes", "only_tags", "only_bytes")) | {"unread": 0, "unknown_images": 0}
    for registry, said in (
        (None, []),
        (unread | {"known_reclaimable_bytes": 0}, ["registry  not read: what it stores is unknown"]),
    ):
        lines = summary_lines(DerivedSummary.model_validate(SUMMARY | {"registry": registry}))
        assert [line for line in lines if line.startswith("registry")] == said


def test_readme_shows_a_run_as_it_is_printed(on_a_terminal):
    (shown,) = re.findall(r"^```\n(Published on.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    summary = SUMMARY | {"estimated_cost": 0.0, "is_priced": False, "unpriced": 0, "reclaimable_bytes": 0}
    summary["registry"] = {
        "tags": 238,
        "stored_bytes": 2 * 2**40,
        "only_tags": 40,
        "only_bytes": 2**38,
        "unread": 1,
        "known_reclaimable_bytes": 0,
        "unknown_images": 0,
    }
    printed = on_a_terminal(print_reports, [report("default") | {"summary": summary}])

    def shape(lines):
        return [re.sub(r"[-+]?[\d,]+(\.\d+)?", "N", line.rstrip()) for line in lines if "│" not in line]

    of_it = shape(line for line in shown.splitlines() if line != "Published on 2026-11-23")
    assert of_it == [line for line in shape(printed) if line in of_it]
    assert [line for line in shape(printed) if line.startswith("  ")] == [line for line in of_it if line[0] == " "]
