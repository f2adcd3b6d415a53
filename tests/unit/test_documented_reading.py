"""The documentation's examples that read the lake, run as they are; the oldest day lacks a column."""

import datetime as dt
import re
import shutil

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from once_per_run import once_per_run
from proved_days import A, B, C, proved_day, publish_proved
from published_days import write_history

from pipelines.settings import ROOT

TODAY = dt.datetime.now(dt.UTC).date()
# The day in the examples.
DAY = dt.date(2026, 11, 25)
LATEST = "anomalies"

of_duckdb = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.drop")


def examples(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def make(directory):
    """Two projects; the files of the day before the newest lack the column that was added last."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(directory)
        for project in ("default", "other"):
            for date, ids in ((DAY - dt.timedelta(days=1), (A, B)), (DAY, (A, B, C))):
                publish_proved(proved_day(str(date), project), dict.fromkeys(ids, "PUBLIC"))
            old = directory / f"lake/images/dt={DAY - dt.timedelta(days=1)}/project={project}/images.parquet"
            table = pq.ParquetFile(old).read()
            assert table.column_names[-1] == LATEST
            pq.write_table(table.drop_columns([LATEST]), old)
    return directory / "lake"


@pytest.fixture(autouse=True)
def lake(tmp_path_factory, tmp_path):
    return shutil.copytree(once_per_run(tmp_path_factory, "documented-reading", make), tmp_path / "lake")


def run(example):
    names = {}
    exec(compile(example, "example", "exec"), names)
    return names


def test_reading_by_the_oldest_file_loses_the_new_column():
    # The examples avoid this.
    assert LATEST not in pd.read_parquet("lake/images").columns


def of(engine):
    (found,) = [text for text in examples("docs/reading.md", "python") if f"import {engine}" in text]
    return run(found)


def test_pandas_example_reads_day_and_all_days():
    found = of("pandas")
    assert len(found["one_day"]) == len(found["same_day"]) == 6
    assert len(found["all_days"]) == 10
    for name in ("one_day", "all_days"):
        assert {LATEST, "dt", "project"} <= {*found[name].columns}
    assert found["bytes_by_day"].to_dict() == {DAY - dt.timedelta(days=1): 4 * 1024, DAY: 6 * 1024}
    # As the page warns.
    assert not (found["all_days"]["snapshot_date"] == str(DAY)).any()
    assert {*found["all_days"]["project"].astype(str)} == {"default", "other"}


def test_pyarrow_example_reads_one_day():
    found = of("pyarrow.dataset")["one_day"]
    assert found.num_rows == 6
    assert {LATEST, "dt", "project"} <= {*found.column_names}


def test_polars_example_reads_one_day():
    found = of("polars")
    assert found["one_day"].height == 6
    assert found["images"].collect().height == 10
    assert {LATEST, "dt", "project"} <= {*found["one_day"].columns}


def test_duckdb_example_sums_bytes():
    (query,) = examples("docs/reading.md", "sql")
    assert duckdb.sql(query).fetchall() == [("default", None, 3 * 1024), ("other", None, 3 * 1024)]
    assert LATEST in duckdb.sql(re.sub("SELECT .*\n", "SELECT *\n", query).partition("GROUP")[0]).columns


@of_duckdb
def test_warehouse_example_reads_one_day():
    with duckdb.connect("lake/warehouse.duckdb") as warehouse:
        warehouse.execute("CREATE TABLE images AS SELECT * FROM 'lake/images/*/*/*.parquet'")
    assert len(of("duckdb")["one_day"]) == 6


def test_readme_examples_run():
    publish_proved(proved_day(str(TODAY), "today"), {A: "PUBLIC"}, hour=0)
    (query,) = examples("README.md", "sql")
    days = {DAY - dt.timedelta(days=1): 4, DAY: 6}
    days[TODAY] = days.get(TODAY, 0) + 1
    assert duckdb.sql(query).fetchall() == [(day, images, images * 1024) for day, images in sorted(days.items())]
    by_file, by_reader = examples("README.md", "python")
    found = run(by_file)
    assert len(found["images"]) == days[TODAY]
    assert LATEST in found["images"].columns
    assert found["bytes_by_namespace"].empty
    visibilities = {A: "PUBLIC", B: "PRIVATE"}
    versions = [{"id": id_, "visibility": seen, "valid_from": DAY} for id_, seen in visibilities.items()]
    write_history(proved_day(str(DAY)), versions)
    found = run(by_reader)
    found["lake"].close()
    assert found["public"]["id"].tolist() == [A]
    assert "change_class" in found["changed"].columns
    assert "estimated_cost" in found["costs"].columns


@of_duckdb
def test_query_page_example_runs():
    for project in ("default", "other"):
        versions = [{"id": id_, "name": "a", "valid_from": DAY} for id_ in (A, B, C)]
        write_history(proved_day(str(DAY), project), versions)
    (example,) = examples("docs/query.md", "python")
    found = run(example)
    found["lake"].close()
    assert found["images"]["project"].value_counts().to_dict() == {"default": 3, "other": 3}
