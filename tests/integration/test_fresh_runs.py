"""A fresh run throws away what an attempt has gathered, when nothing refuses the run any more."""

import datetime as dt
from dataclasses import replace

import pytest

from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Partition
from pipelines.lake.stored_files import exists
from pipelines.settings import Settings
from pipelines.snapshot.steps import Day, fetch_answers, take_inventory

DATE = dt.date(2026, 11, 23)
NOON = dt.datetime.combine(DATE, dt.time(12), dt.UTC)


@pytest.fixture
def day(start_sandbox, tmp_path, monkeypatch):
    """By access key, which needs no token, and with nothing read beside the images."""
    sandbox = start_sandbox(size=20, inventory_file=tmp_path / "inventory.csv", day=DATE)
    for name in ("OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_PROJECT_ID"):
        monkeypatch.setenv(name, sandbox.env[name])
    settings = Settings(
        endpoint=sandbox.endpoint,
        lake=str(tmp_path / "lake"),
        inventory=str(tmp_path / "inventory.csv"),
        reconcile=False,
        usage=False,
    )
    return Day(Partition(DATE, "default"), "run-1", settings, lambda: NOON)


def fetched(day):
    take_inventory(day)
    return fetch_answers(day, lambda progress: None).facts


def test_a_fresh_run_throws_nothing_away_before_it_may_go_on_and_then_all(day, monkeypatch):
    fetched(day)
    attempt = day.lake.staging(day.partition) / "attempt.json"
    gathered = attempt.read_bytes()

    def refuse(*_):
        raise ConfigurationError("another project")

    fresh = replace(day, is_fresh=True, run_id="run-2")
    with monkeypatch.context() as patched, pytest.raises(ConfigurationError, match="another project"):
        patched.setattr(Day, "check_project", refuse)
        take_inventory(fresh)
    assert attempt.read_bytes() == gathered
    take_inventory(fresh)
    assert not exists(day.lake.staging(day.partition) / "answers.sqlite")
    assert fetch_answers(day, lambda progress: None).facts.kept == 0
