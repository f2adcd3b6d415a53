"""What somebody says of one run: from the command line through the run's tags, and what is then printed."""

import pytest
from published_days import day_of, publish_day
from typer.testing import CliRunner

from assets import cli
from assets.resources import ACCEPT_SHRUNK_TAG, PROJECT_MOVED_TAG
from assets.run_report import print_reports, run_report

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
    ],
)
def test_flags_become_tags_of_the_run(monkeypatch, arguments, tags):
    given = []
    monkeypatch.setattr(cli, "_run_jobs", lambda *_, **options: given.append(options["tags"]))
    result = CliRunner().invoke(cli.app, ["run", *arguments])
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
def test_a_run_says_what_to_know_of_its_inventory_and_stays_complete(capsys, facts, sentence):
    day = day_of("2026-11-02")
    manifest = publish_day(
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
