"""`status` for cron and monitors: its exit status, and why a day is missing, from the lake alone."""

import datetime as dt
import json
import shutil

import httpx
import pytest

from pipelines.lake.failures import Failure, forget_failure, last_failures, note_failure
from pipelines.lake.layout import Lake, Partition
from pipelines.maintenance.verify_files import survey

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION = Partition(TODAY, "default")


@pytest.fixture
def sandbox(start_sandbox, tmp_path):
    return start_sandbox(size=3, inventory_file=tmp_path / "inventory.csv")


def status(image_snapshots):
    result = image_snapshots("status", "--check", "--json")
    days = json.loads(result.stdout)
    return result.returncode, [(day["state"], day["failure"] and day["failure"]["sentence"]) for day in days]


def test_check_fails_for_a_missing_day_but_plain_status_does_not(image_snapshots):
    plain = image_snapshots("status")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert status(image_snapshots) == (1, [("missing", None)])


def test_check_names_what_is_missing_or_incomplete_on_standard_error(image_snapshots, sandbox):
    day = image_snapshots("run", env=sandbox.env)
    assert day.returncode == 0
    env = {"IMAGE_SNAPSHOTS_PROJECTS": json.dumps({"default": "a", "other": "b"})}
    result = image_snapshots("status", "--check", env=env)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["Missing or incomplete: 1 of 2 partitions.", f"{TODAY} other: missing"]
    assert result.stdout == image_snapshots("status", env=env).stdout


def test_failure_is_shown_until_the_day_is_published(image_snapshots, sandbox, tmp_path):
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"suspended": True}).raise_for_status()
    failed = image_snapshots("run", env=sandbox.env)
    code, [(state, sentence)] = status(image_snapshots)
    assert (code, state) == (1, "unfinished")
    assert f"Error: {sentence}" in failed.stderr
    # Only the note remains after somebody has cleaned up.
    (tmp_path / f"lake/_staging/dt={TODAY}/project=default/attempt.json").unlink()
    assert status(image_snapshots) == (1, [("missing", sentence)])
    piped = image_snapshots("status").stdout.splitlines()
    assert piped[0].split("\t")[-1] == "last failure"
    assert piped[1].split("\t")[-1] == sentence

    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={}).raise_for_status()
    assert image_snapshots("run", env=sandbox.env).returncode == 0
    assert status(image_snapshots) == (0, [("complete", None)])


def test_failure_before_a_run_began_is_shown(image_snapshots, sandbox):
    env = {**sandbox.env, "IMAGE_SNAPSHOTS_PRICE_BOOK": "missing.toml"}
    assert image_snapshots("run", env=env).returncode == 2
    code, [(state, sentence)] = status(image_snapshots)
    assert (code, state) == (1, "missing")
    assert "missing.toml" in sentence


def test_check_fails_for_a_damaged_day(image_snapshots, sandbox, tmp_path):
    assert image_snapshots("run", env=sandbox.env).returncode == 0
    (tmp_path / f"lake/_manifests/dt={TODAY}/project=default.json").write_text("{")
    assert status(image_snapshots)[1][0][0] == "damaged"
    assert status(image_snapshots)[0] == 1


def failure(step):
    return Failure(at=dt.datetime.now(dt.UTC), run_id="run", step=step, sentence="It failed.")


def test_successful_step_clears_only_its_own_failure(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    yesterday = Partition(TODAY - dt.timedelta(days=1), "default")
    other = Partition(TODAY, "other")
    for partition in (yesterday, PARTITION, other):
        note_failure(lake, partition, failure("derive_tables"))
    forget_failure(lake, PARTITION, "daily_report", of_all_days=False)
    assert [*last_failures(lake)] == [yesterday, PARTITION, other]
    forget_failure(lake, PARTITION, "derive_tables", of_all_days=False)
    assert [*last_failures(lake)] == [yesterday, other]
    forget_failure(lake, PARTITION, "derive_tables", of_all_days=True)
    assert [*last_failures(lake)] == [other]


def test_damaged_or_copied_failure_note_is_ignored(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    note_failure(lake, PARTITION, failure(None))
    shutil.copytree(lake.staging(PARTITION), lake.staging(PARTITION).with_name("project=default (copy)"))
    assert [*last_failures(lake)] == [PARTITION]
    lake.failure(PARTITION).write_text("{")
    assert last_failures(lake) == {}


def test_verify_does_not_count_a_failure_note_as_an_attempt(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    note_failure(lake, PARTITION, failure(None))
    notes = []
    assert survey(lake, notes.append) == ([], set())
    assert notes == []


def test_unwritable_failure_note_changes_nothing(tmp_path):
    (tmp_path / "lake").write_text("")
    note_failure(Lake(str(tmp_path / "lake")), PARTITION, failure(None))
