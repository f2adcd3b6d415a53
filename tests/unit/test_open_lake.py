"""The reader for notebooks: the frame of each question, its types, and one sentence for what cannot be answered."""

import datetime as dt
import hashlib
import json
import re
import shutil
import subprocess
import sys
from decimal import Decimal

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fortnight import DAYS, LAST_DAY
from published_days import publish_snapshot, rows_of, write_history

from pipelines import open_lake
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Partition
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import IMAGE_CHANGES, IMAGE_COSTS, IMAGE_STORAGE

ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
FIRST, SECOND, THIRD = (dt.date(2026, 11, day) for day in (1, 2, 3))
# What the registry stores for the image on each day.
STORED = {FIRST: {}, SECOND: {"digest": "sha256:a", "digest_before_date": FIRST, "unique_bytes": 5}, THIRD: {}}


@pytest.fixture(scope="module")
def lake(fortnight):
    with open_lake(fortnight) as opened:
        yield opened


@pytest.fixture(scope="module")
def stored(fortnight):
    """Rows of a table of the fortnight, read from the files of all days, or of one."""

    def rows(name, date="*"):
        return [
            row
            for path in sorted(fortnight.glob(f"{name}/dt={date}/project=default/*.parquet"))
            for row in pq.ParquetFile(path).read().to_pylist()
        ]

    return rows


@pytest.fixture(scope="module")
def two_projects(tmp_path_factory):
    """`main`: complete on the 1st and 2nd, not on the 3rd; `other`: complete on the 1st. One change and cost a day."""
    root = tmp_path_factory.mktemp("reader") / "lake"

    def publish(date, project, outcome="ok"):
        day = SnapshotRun(Partition(date, project), "run", Settings(lake=str(root)))
        images = [{"id": ONE, "name": "a"}] if outcome == "ok" else []
        publish_snapshot(day, responses=[{"id": ONE, "outcome": outcome, "body": b"{}"}], images=images)
        for table, row in (
            (IMAGE_CHANGES, {"change": "changed", "field": "name", "change_class": "content"}),
            (IMAGE_STORAGE, {"state": "known" if date == SECOND else "unread", "digest_changes": 0, **STORED[date]}),
            (IMAGE_COSTS, {"owner": "ann", "currency": "EUR", "owner_source": "tag", "estimated_cost": 1.5}),
        ):
            row |= {"id": ONE, "snapshot_date": date, "project_id": "p1", "is_carried": False, "compared_with": FIRST}
            with day.lake.writer(day.lake.table(table.name, day.partition), table, "run") as writer:
                writer.write(rows_of(table, [{k: v for k, v in row.items() if k in table.schema.names}]))
        return day

    publish(FIRST, "main")
    second = publish(SECOND, "main")
    publish(THIRD, "main", "failed")
    write_history(second, [{"id": ONE, "name": "a", "valid_from": FIRST}])
    write_history(publish(FIRST, "other"), [{"id": ONE, "name": "b", "valid_from": FIRST}])
    return root


def sentence(call):
    with pytest.raises(ConfigurationError) as raised:
        call()
    return str(raised.value)


def test_images_are_the_living_ones_of_the_last_complete_day_with_their_owners(lake, stored):
    frame = lake.images()
    owners = {row["id"]: row["owner"] for row in stored("image_costs", LAST_DAY)}
    living = {row["id"]: row["name"] for row in stored("image_costs", LAST_DAY)}
    assert dict(zip(frame["id"], frame["name"], strict=True)) == living
    assert {id_: owner or None for id_, owner in zip(frame["id"], frame["owner"].fillna(""), strict=True)} == owners
    assert set(frame["rests_on"]) == {pd.Timestamp(LAST_DAY)}


def test_frames_of_a_day_open_no_files_of_other_days(two_projects, tmp_path):
    root = shutil.copytree(two_projects, tmp_path / "lake")
    for name in ("image_costs", "image_storage"):
        (root / f"{name}/dt={FIRST}/project=main/{name}.parquet").write_bytes(b"damaged")
    with open_lake(root) as lake:
        assert lake.storage(project="main")["snapshot_date"].tolist() == [pd.Timestamp(SECOND)]
        for frame in (lake.images(project="main"), lake.images(SECOND, project="main")):
            assert frame[["owner", "rests_on"]].values.tolist() == [["ann", pd.Timestamp(SECOND)]]


def test_images_as_of_a_day_are_those_of_that_day(lake, stored):
    assert set(lake.images(as_of=DAYS[3])["id"]) == {row["id"] for row in stored("image_costs", DAYS[3])}
    assert lake.images(as_of=str(DAYS[3])).equals(lake.images(as_of=DAYS[3]))
    assert "is not known: complete days speak for default" in sentence(lambda: lake.images(as_of="2027-01-01"))


def test_explode_gives_one_row_for_each_element_and_keeps_images_without_elements(lake):
    plain, exploded = lake.images(), lake.images(explode="dev_services")
    expected = [
        (id_, element or None)
        for id_, text in zip(plain["id"], plain["dev_services"].fillna(""), strict=True)
        for element in text.split("|")
    ]
    elements = exploded["dev_services"].astype(object).where(exploded["dev_services"].notna(), None)
    found = zip(exploded["id"], elements, strict=True)
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert {"NOTEBOOK", "SSH", None} <= set(elements)
    assert sentence(lambda: lake.images(explode="name")) == (
        "explode='name' is not a list field: use one of dev_services, resource_categories, support_res_categories."
    )


def test_frames_have_the_documented_types(lake):
    types = lake.images().dtypes
    assert types["id"] == "str"
    assert types["create_at"] == "datetime64[us, UTC]"
    assert types["rests_on"] == "datetime64[ms]"
    assert types["size_bytes"] == "Int64"
    assert types["is_current"] == "boolean"
    assert dict(lake.costs().dtypes) == {
        "owner": "str",
        "currency": "str",
        "image_days": "Int64",
        "image_days_without_estimate": "Int64",
        "estimated_cost": "float64",
        "image_days_without_bill": "Int64",
        "billed_cost": "object",
        "billed_registry_cost": "object",
    }


def test_changes_of_a_period_are_those_of_its_days(lake, stored):
    rows = stored("image_changes")
    assert len(lake.changes()) == len(rows)
    within = [row for row in rows if DAYS[4] <= row["snapshot_date"] <= DAYS[6]]
    frame = lake.changes(since=DAYS[4], until=DAYS[6])
    assert sorted(frame["id"] + frame["field"]) == sorted(row["id"] + row["field"] for row in within)
    assert 0 < len(within) < len(rows)


def test_findings_are_the_open_ones_of_the_stated_severities(lake, stored):
    open_ones = [
        row
        for row in stored("audit_findings", LAST_DAY)
        if row["state"] != "resolved" and row["suppressed_until"] is None
    ]
    assert set(lake.findings()["finding_id"]) == {row["finding_id"] for row in open_ones}
    high = [row["finding_id"] for row in open_ones if row["severity"] == "high"]
    assert sorted(lake.findings("high")["finding_id"]) == sorted(high)
    assert high
    assert lake.findings(["high", "low"])["severity"].unique().tolist() == ["high", "low"]
    assert sentence(lambda: lake.findings("grave")) == (
        "severity='grave' is not known: use critical, high, medium, low, info."
    )


def test_costs_are_added_up_by_the_stated_columns(lake, stored):
    rows = [row for row in stored("image_costs") if row["snapshot_date"] >= DAYS[10]]
    frame = lake.costs(by=["owner", "snapshot_date"], since=DAYS[10])
    expected = {}
    for row in rows:
        key = (row["owner"] or "", pd.Timestamp(row["snapshot_date"]))
        expected[key] = expected.get(key, 0) + 1
    counted = dict(
        zip(zip(frame["owner"].fillna(""), frame["snapshot_date"], strict=True), frame["image_days"], strict=True)
    )
    assert counted == expected
    assert "by='size' is not known: use project, snapshot_date, owner" in sentence(lambda: lake.costs(by="size"))
    assert sentence(lambda: lake.costs(by=[])).startswith("by is empty: use project")


def test_usage_is_that_of_the_last_day(lake, stored):
    rows = {row["id"]: row["running"] for row in stored("image_usage", LAST_DAY)}
    frame = lake.usage()
    assert dict(zip(frame["id"], frame["running"], strict=True)) == rows


def test_history_shows_every_version_of_an_image_in_order(lake):
    changed = lake.changes().query("field == 'visibility'")["id"].iloc[0]
    frame = lake.history(changed.upper())
    assert len(frame) > 1
    assert set(frame["id"]) == {changed}
    assert frame["valid_from"].is_monotonic_increasing
    assert lake.history("unknown").empty


def test_evidence_is_the_exact_response_and_the_manifest_that_proves_it(lake, fortnight, stored):
    row = next(row for row in stored("responses", DAYS[5]) if row["outcome"] == "ok")
    proof = lake.evidence(row["id"], DAYS[5])
    path = fortnight / f"_manifests/dt={DAYS[5]}/project=default.json"
    assert (proof.body, proof.body_sha256) == (row["body"], hashlib.sha256(row["body"]).hexdigest())
    assert proof.manifest == json.loads(path.read_bytes())
    assert proof.manifest_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    following = json.loads((fortnight / f"_manifests/dt={DAYS[6]}/project=default.json").read_bytes())
    assert following["previous_manifest_sha256"] == proof.manifest_sha256
    assert "No response for the image 'nobody' is stored for 2026-11-23" in sentence(
        lambda: lake.evidence("nobody", LAST_DAY)
    )
    assert sentence(lambda: lake.evidence("nobody", "23.11.")) == "day='23.11.' is not a day: write it as YYYY-MM-DD."


def test_sql_takes_parameters_and_only_reads(lake, stored):
    frame = lake.sql("SELECT id FROM images WHERE snapshot_date = $day AND visibility = $v", day=LAST_DAY, v="PUBLIC")
    expected = [row["id"] for row in stored("images", LAST_DAY) if row["visibility"] == "PUBLIC"]
    assert sorted(frame["id"]) == sorted(expected)
    assert "does more than read" in sentence(lambda: lake.sql("CREATE TABLE a (b INT)"))


def test_arrow_and_polars_give_the_same_rows(lake):
    frame, table, polars = lake.images(), lake.arrow().images(), lake.polars().images()
    assert isinstance(table, pa.Table)
    assert isinstance(polars, pl.DataFrame)
    assert table["id"].to_pylist() == polars["id"].to_list() == frame["id"].tolist()
    assert polars.schema["create_at"] == pl.Datetime("us", "UTC")


def test_incomplete_days_are_left_out_unless_asked_for_and_frames_say_so(two_projects):
    with open_lake(two_projects) as lake, open_lake(two_projects, include_incomplete=True) as everything:
        assert len(lake.changes(project="main")) == 2
        assert len(everything.changes(project="main")) == 3
        assert lake.costs(by="project")[["project", "image_days", "estimated_cost"]].values.tolist() == [
            ["main", 2, 3.0],
            ["other", 1, 1.5],
        ]
        assert lake.changes().attrs == {
            "lake": str(two_projects),
            "is_sandbox": True,
            "includes_incomplete": False,
            "incomplete_days": ["main 2026-11-03"],
        }
        assert everything.changes().attrs["includes_incomplete"] is True
        assert len(lake.days()) == 4


def test_frames_that_may_have_rows_of_incomplete_days_say_so(two_projects):
    with open_lake(two_projects) as lake:
        for frame in (lake.days(), lake.sql("SELECT * FROM responses WHERE snapshot_date = $day", day=THIRD)):
            assert len(frame) > 0
            assert frame.attrs["includes_incomplete"] is True
        assert lake.usage().attrs["includes_incomplete"] is False


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (lambda lake: lake.images(project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.images(FIRST, project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.changes(project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.findings(project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.costs(project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.usage(project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.storage(project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.history(ONE, project="mian"), "project='mian' has no days in the lake: use main, other."),
        (lambda lake: lake.evidence(ONE, FIRST, project=""), "project='' has no days in the lake: use main, other."),
        (lambda lake: lake.usage(project=["main"]), "project is text, not list."),
        (lambda lake: lake.changes(SECOND, FIRST), "until=2026-11-01 is before since=2026-11-02: exchange them."),
        (lambda lake: lake.costs("id", SECOND, FIRST), "until=2026-11-01 is before since=2026-11-02: exchange them."),
        (lambda lake: lake.images(20261101), "as_of=20261101 is not a day: write it as YYYY-MM-DD."),
        (lambda lake: lake.changes(pd.NaT), "since=NaT is not a day: write it as YYYY-MM-DD."),
        (
            lambda lake: lake.images(explode=["dev_services"]),
            "explode=['dev_services'] is not a list field: use one of",
        ),
        (lambda lake: lake.findings(1), "severity=1 is not known: use critical, high, medium, low, info."),
        (lambda lake: lake.history(None), "The id of an image is text, not NoneType."),
        (lambda lake: lake.evidence(1, FIRST), "The id of an image is text, not int."),
        (lambda lake: lake.sql(1), "SQL is text, not int."),
        (lambda lake: lake.sql("SELECT $day"), "The query failed: "),
        (lambda lake: lake.sql("SELECT 1", day=1), "The query failed: "),
        (lambda lake: lake.sql("SELECT $day", day=object()), "The query failed: "),
        (lambda lake: lake.sql(""), "The query holds no statements: give one"),
    ],
)
def test_mistake_in_an_argument_is_one_sentence(two_projects, question, said):
    with open_lake(two_projects) as lake:
        found = sentence(lambda: question(lake))
    assert found.startswith(said)
    assert "\n" not in found


def test_sums_of_whole_numbers_are_whole_numbers(two_projects):
    with open_lake(two_projects) as lake:
        query = (
            "SELECT SUM(v) AS total, SUM(v) * 1000 AS huge, MAX(v) AS v FROM (VALUES (9000000000000000000), (1)) t(v)"
        )
        frame = lake.sql(query)
        assert [str(type_) for type_ in frame.dtypes] == ["Int64", "object", "Int64"]
        assert frame.values.tolist() == [[9 * 10**18 + 1, Decimal(9 * 10**21 + 1000), 9 * 10**18]]
        assert lake.polars().sql(query).schema["total"] == pl.Int64
        assert str(lake.sql("SELECT SUM(v) AS total FROM (SELECT 1 AS v WHERE FALSE)").dtypes["total"]) == "Int64"


def test_any_name_may_be_that_of_a_parameter(two_projects):
    with open_lake(two_projects) as lake:
        assert lake.sql("SELECT $query AS a, $self AS b", query=1, self="x").values.tolist() == [[1, "x"]]


def test_damaged_manifest_is_one_sentence(two_projects, tmp_path):
    root = shutil.copytree(two_projects, tmp_path / "lake")
    (root / f"_manifests/dt={SECOND}/project=main.json").write_text("{")
    with open_lake(root) as lake:
        for question in (lake.findings, lambda: lake.history(ONE), lambda: lake.evidence(ONE, SECOND)):
            with pytest.raises(StorageError, match="A manifest of the lake may be damaged: `image-snapshots verify"):
                question()


def test_storage_is_that_of_the_last_complete_day_with_unknown_bytes_as_null(two_projects):
    with open_lake(two_projects) as lake:
        frame = lake.storage()
        assert frame[["project", "snapshot_date", "state"]].values.tolist() == [
            ["main", pd.Timestamp(SECOND), "known"],
            ["other", pd.Timestamp(FIRST), "unread"],
        ]
        assert frame["unique_bytes"].isna().tolist() == [False, True]
        assert (frame["unique_bytes"].iloc[0], frame["digest"].iloc[0]) == (5, "sha256:a")
        types = frame.dtypes
        assert (types["unique_bytes"], types["shared_bytes_share"], types["digest"]) == ("Int64", "float64", "str")
        assert types["digest_before_date"] == "datetime64[ms]"
        assert lake.storage(project="other")["project"].tolist() == ["other"]


def test_project_limits_every_question(two_projects):
    with open_lake(two_projects) as lake:
        assert lake.images()[["project", "name"]].values.tolist() == [["main", "a"], ["other", "b"]]
        assert lake.images(project="other")["name"].tolist() == ["b"]
        assert lake.images(as_of=FIRST, project="other")["name"].tolist() == ["b"]
        assert lake.history(ONE, project="main")["name"].tolist() == ["a"]
        assert sentence(lambda: lake.evidence(ONE, FIRST)) == (
            f"Several projects have a response for '{ONE}' on 2026-11-01: name one of main, other."
        )
        assert lake.evidence(ONE, FIRST, project="other").project == "other"
        assert lake.evidence(ONE, THIRD).outcome == "failed"


def test_setting_names_the_lake_and_a_later_question_after_close_sees_new_days(two_projects, monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_LAKE", str(two_projects))
    lake = open_lake()
    assert repr(lake) == f"<reader of the lake {two_projects}>"
    assert len(lake.days()) == 4
    lake.close()
    assert len(lake.days()) == 4
    lake.close()


def test_path_that_no_system_has_is_one_sentence():
    assert sentence(lambda: open_lake("la\0ke").days()) == "The path of the lake has a null byte: 'la\\x00ke'."


def test_lake_without_days_is_one_sentence(tmp_path):
    assert re.match(
        r"Nothing is published in the lake .*: take a snapshot", sentence(lambda: open_lake(tmp_path).days())
    )


def test_import_loads_no_orchestrator():
    code = "import sys; from pipelines import open_lake; print(sorted({'dagster', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
