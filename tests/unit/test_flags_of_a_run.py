"""Flags for a single run: from the command line through the run's tags to the output."""

import pytest
from published_days import day_of, publish_snapshot
from typer.testing import CliRunner

from assets import cli, status_command
from assets.resources import ACCEPT_HISTORY_TAG, ACCEPT_SHRUNK_TAG, FRESH_TAG, PROJECT_MOVED_TAG
from assets.run_report import print_reports, run_report
from pipelines.maintenance.status import day_statuses

A = "aaaaaaaa-0000-4000-8000-000000000000"

ACCEPTED = (
    "The inventory a.csv lacks 5 of the 10 images known on 2026-11-01, and was accepted as it is: what it lacks left "
    "the history."
)


@pytest.mark.parametrize(
    ("arguments", "tags"),
    [
        ([], {}),
        (["--accept-shrunk-inventory"], {ACCEPT_SHRUNK_TAG: "true"}),
        (["--project-moved"], {PROJECT_MOVED_TAG: "true"}),
        (["--fresh"], {FRESH_TAG: "true"}),
    ],
)
def test_command_line_flags_become_tags_of_the_run(monkeypatch, arguments, tags):
    given = []
    monkeypatch.setattr(cli, "_run_jobs", lambda *_, **options: given.append(options["tags"]))
    result = CliRunner().invoke(cli.app, ["run", *arguments])
    assert (result.exit_code, given) == (0, [tags]), result.output


@pytest.mark.parametrize(("arguments", "tags"), [([], {}), (["--accept-history", "ab"], {ACCEPT_HISTORY_TAG: "ab"})])
def test_tag_of_the_run_accepts_a_history(monkeypatch, arguments, tags):
    given = []
    monkeypatch.setattr(cli, "_run_jobs", lambda *_, **options: given.append(options["tags"]))
    result = CliRunner().invoke(cli.app, ["rebuild", "--date", "2026-11-01", *arguments])
    assert (result.exit_code, given) == (0, [tags]), result.output


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({}, None),
        ({"is_whole": False, "reason": "It lacks too many."}, "It lacks too many."),
        (
            {"is_accepted": True, "missing": 5, "known": 10, "compared_with": "2026-11-01"},
            ACCEPTED,
        ),
    ],
)
def test_run_reports_a_partial_inventory_and_stays_complete(capsys, facts, sentence):
    day = day_of("2026-11-02")
    manifest = publish_snapshot(
        day,
        inventory=[{"id": A}],
        responses=[{"id": A, "outcome": "ok"}],
        images=[{"id": A}],
        inventory_facts=facts,
    )
    report = run_report(day.lake, day.partition, cli.COMPLETE, None, manifest)
    assert (report["state"], report["inventory_warning"]) == ("complete", sentence)
    print_reports([report])
    printed = capsys.readouterr().out.splitlines()
    assert (f"  {sentence}" in printed) is (sentence is not None)
    (status,) = day_statuses(day.lake, ["default"], day.partition.date, day.partition.date)
    assert (status.state, status.inventory_is_whole) == ("complete", facts.get("is_whole", True))


def test_status_shows_a_partial_inventory(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_LAKE", "lake")
    monkeypatch.setattr(status_command, "_today", lambda: day_of("2026-11-02").partition.date)
    for date, facts in (("2026-11-01", {}), ("2026-11-02", {"is_whole": False, "reason": "It lacks too many."})):
        publish_snapshot(
            day_of(date), inventory=[{"id": A}], responses=[{"id": A, "outcome": "ok"}], images=[{"id": A}],
            inventory_facts=facts,
        )  # fmt: skip
    lines = CliRunner().invoke(cli.app, ["status", "--days", "2"]).output.splitlines()
    assert ["inventory not whole" in line for line in lines if line.startswith("2026-11-0")] == [False, True]
