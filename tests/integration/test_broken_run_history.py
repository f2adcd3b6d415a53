"""A day is taken even if the run storage cannot be used, and the command says so."""

import datetime as dt
import shutil

import pytest

from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published
from pipelines.settings import ROOT

TODAY = dt.datetime.now(dt.UTC).date()


@pytest.fixture
def takes_the_day(image_snapshots, start_sandbox, tmp_path):
    sandbox = start_sandbox(size=3, inventory_file=tmp_path / "inventory.csv")

    def run(**env):
        result = image_snapshots("run", env={**sandbox.env, **env}, keeps_runs=True)
        assert result.returncode == 0, result.stderr
        assert published(Lake("lake"), Partition(TODAY, "default")).is_complete
        (warning,) = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
        return warning

    return run


def test_day_is_taken_with_unwritable_storage(takes_the_day, tmp_path):
    (tmp_path / "file").write_text("")
    assert "set DAGSTER_HOME" in takes_the_day(DAGSTER_HOME=str(tmp_path / "file" / "home"))


@pytest.mark.slow  # Dagster asks the database again and again for some seconds.
def test_day_is_taken_with_storage_that_is_down(takes_the_day, tmp_path):
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path)
    url = "postgresql+psycopg2://dagster:pg-secret-4711@127.0.0.1:9/dagster"
    warning = takes_the_day(DAGSTER_HOME=str(tmp_path), DAGSTER_POSTGRES_URL=url, DAGSTER_COMPUTE_LOGS=str(tmp_path))
    assert "Dagster's own storage" in warning
    assert "pg-secret-4711" not in warning


def test_day_is_taken_with_a_missing_storage_variable(takes_the_day, tmp_path):
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path)
    assert "Dagster's own storage" in takes_the_day(DAGSTER_HOME=str(tmp_path))
