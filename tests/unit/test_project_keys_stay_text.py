"""Project keys: readers convert directory names that look like numbers or dates, so such keys are refused."""

import json

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigurationError
from pipelines.inputs.project_keys import wrong_with_key
from pipelines.lake.names import project_of
from pipelines.settings import Settings

RETYPED = ["007", "0x10", "1e5", "12.5", "1_000", "2026-11-25", "20261125", "1d", "0", "1-2"]
WORDS = ["null", "none", "nan", "na", "true", "false", "yes", "no", "on", "off", "inf", "infinity", "epoch"]
TEXTS = ["default", "p007", "x10", "e5", "ff", "a", "true-colours", "nov-25", "null.prod", "t1e5"]


@pytest.mark.parametrize("key", [*RETYPED, *WORDS])
def test_key_that_readers_convert_is_refused(monkeypatch, key):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", json.dumps({key: "p1"}))
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value).startswith(f"The setting IMAGE_SNAPSHOTS_PROJECTS is wrong: key '{key}' must ")
    assert raised.value.exit_status == 2
    assert project_of(f"project={key}") is None


@pytest.mark.parametrize("key", TEXTS)
def test_accepted_key_stays_text_in_every_reader(tmp_path, key):
    assert wrong_with_key(key) is None
    directory = tmp_path / "images" / "dt=2026-11-25" / f"project={key}"
    directory.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["x"]}), directory / "images.parquet")
    files = str(tmp_path / "images/*/*/*.parquet")
    assert pd.read_parquet(tmp_path / "images")["project"].astype(object).tolist() == [key]
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT project FROM '{files}'").fetchall() == [(key,)]
    assert pl.read_parquet(files, hive_partitioning=True)["project"].to_list() == [key]
