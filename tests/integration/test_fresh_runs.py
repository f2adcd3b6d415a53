"""A run resumes an attempt with its responses, or, with `--fresh`, discards them."""

import datetime as dt
import os
from dataclasses import replace

import pytest
from cut_off import EndedError, end

from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import read_attempt, write_attempt
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

DATE = dt.date(2026, 11, 23)
NOON = dt.datetime.combine(DATE, dt.time(12), dt.UTC)


@pytest.fixture
def day(start_sandbox, tmp_path, monkeypatch):
    """With an access key, which needs no token, and without lists: only images are requested."""
    sandbox = start_sandbox(size=20, inventory_file=tmp_path / "inventory.csv", day=DATE)
    for name in ("OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_PROJECT_ID"):
        monkeypatch.setenv(name, sandbox.env[name])
    settings = Settings(
        endpoint=sandbox.endpoint,
        lake=str(tmp_path / "lake"),
        inventory=str(tmp_path / "inventory.csv"),
        reconcile=False,
        usage="none",
        workspaces="0",
    )
    return SnapshotRun(Partition(DATE, "default"), "run-1", settings, lambda: NOON)


def fetched(day):
    take_inventory(day)
    return fetch_responses(day, lambda progress: None).facts


def test_fresh_run_discards_the_attempt_only_after_its_checks(day, monkeypatch):
    fetched(day)
    attempt = day.lake.staging(day.partition) / "attempt.json"
    gathered = attempt.read_bytes()

    def refuse(*_):
        raise ConfigurationError("another project")

    fresh = replace(day, is_fresh=True, run_id="run-2")
    with monkeypatch.context() as patched, pytest.raises(ConfigurationError, match="another project"):
        patched.setattr(SnapshotRun, "check_project", refuse)
        take_inventory(fresh)
    assert attempt.read_bytes() == gathered
    take_inventory(fresh)
    assert not (day.lake.staging(day.partition) / "checkpoint.sqlite").is_there()
    assert fetch_responses(day, lambda progress: None).facts.kept == 0


def test_resumed_run_without_requests_is_still_marked_as_sandbox(day):
    take_inventory(day)
    with pytest.raises(EndedError):
        fetch_responses(day, end)
    # Twice, because the second interrupted run has no response of its own, either.
    for _ in range(2):
        facts = fetched(day)
        assert (facts.requests, facts.is_sandbox) == (0, True)
    assert publish_snapshot(day).manifest.fetch.is_sandbox


def test_mark_of_another_endpoint_in_the_same_attempt_is_ignored(day):
    take_inventory(day)
    with pytest.raises(EndedError):
        fetch_responses(day, end)
    attempt = read_attempt(day.lake, day.partition)
    assert attempt.sandbox == f"{day.settings.endpoint} {os.environ['OS_PROJECT_ID']}"
    write_attempt(day.lake, day.partition, attempt.model_copy(update={"sandbox": "https://modelarts.example p"}))
    assert not fetched(day).is_sandbox
