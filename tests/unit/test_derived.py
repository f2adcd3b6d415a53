"""Which days are derived again, and that all derived tables can be derived again from the published days alone."""

import shutil

import pyarrow.parquet as pq
import pytest
from once_per_run import once_per_run
from proved_days import forge_record
from published_days import day_of, publish_snapshot

from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.maintenance.verify import verify_derived
from pipelines.tables import ANALYSIS_TABLES, IMAGE_CHANGES, IMAGE_HISTORY, IMAGE_USAGE

A, B = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")
DATES = ("2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04")


def publish(date, names, failed=()):
    """Publish a day on which each image has a name and an owner."""
    answers = {**dict.fromkeys(names, "ok"), **dict.fromkeys(failed, "failed")}
    publish_snapshot(
        day_of(date),
        inventory=[{"id": id_, "owner": "o", "cost_center": "c"} for id_ in sorted(answers)],
        responses=[{"id": id_, "outcome": answers[id_]} for id_ in sorted(answers)],
        images=[
            {"id": id_, "name": name, "content_hash": name, "size": 1, "size_bytes": 1024, "visibility": "PRIVATE"}
            for id_, name in sorted(names.items())
        ],
        listed=[],
        references=[],
    )


def derive(date):
    """Derive a day, and return the days that were derived."""
    days = []
    result = derive_days(day_of(date), lambda partition, *_: days.append(str(partition.date)))
    return result.derived_manifest, days


def contents():
    """Every derived table of the lake, by path."""
    lake = day_of(DATES[0]).lake
    files = [path for name in ANALYSIS_TABLES for path in sorted((lake.root / name).rglob("*.parquet"))]
    return {str(path.relative_to(lake.root)): pq.ParquetFile(path).read() for path in files}


@pytest.fixture(scope="module")
def derived_days(tmp_path_factory):
    """Four published days, each derived when it was published; the third is incomplete."""

    def make(root):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            publish("2026-11-01", {A: "a", B: "b"})
            derive("2026-11-01")
            publish("2026-11-02", {A: "a2"})
            derive("2026-11-02")
            publish("2026-11-03", {A: "a3"}, failed=[B])
            derive("2026-11-03")
            publish("2026-11-04", {A: "a3", B: "b"})
            derive("2026-11-04")
        return root / "lake"

    return once_per_run(tmp_path_factory, "derived-days", make)


@pytest.fixture
def four_days(derived_days, tmp_path):
    shutil.copytree(derived_days, tmp_path / "lake")


def test_deleted_derived_tables_are_derived_again_from_published_days(four_days):
    before = contents()
    assert len(before) == 4 * 11 + 1
    lake = day_of(DATES[0]).lake
    for name in (*ANALYSIS_TABLES, "_derived"):
        shutil.rmtree(lake.root / name)
    manifest, days = derive("2026-11-04")
    # The days without tables are derived, too.
    assert days == list(DATES)
    after = contents()
    assert after.keys() == before.keys()
    for path, table in before.items():
        assert after[path].equals(table), path
    assert manifest.summary.changes == {"changed": 1, "reappeared": 1}
    assert str(manifest.summary.compared_with) == "2026-11-02"
    assert (
        manifest.summary.images,
        manifest.summary.total_bytes,
        manifest.summary.growth_bytes,
    ) == (2, 2048, 1024)
    # Days that are up to date are skipped, except for the requested day.
    assert derive("2026-11-02")[1] == ["2026-11-02"]


def test_rerun_outdates_the_day_and_days_compared_with_it(four_days):
    publish("2026-11-02", {A: "a", B: "b"})
    _, days = derive("2026-11-02")
    assert days == ["2026-11-02", "2026-11-03", "2026-11-04"]
    lake = day_of("2026-11-04").lake
    summary = read_derived_manifest(lake, day_of("2026-11-04").partition).summary
    assert summary.changes == {"changed": 1}
    # No day is compared with an incomplete day.
    publish("2026-11-03", {A: "other"}, failed=[B])
    assert derive("2026-11-04")[1] == ["2026-11-03", "2026-11-04"]


def test_damaged_derived_files_are_repaired_with_the_next_day(four_days):
    before = contents()
    day = day_of("2026-11-02")
    history = day.lake.project_table(IMAGE_HISTORY.name, "default")
    history.write_bytes(b"no Parquet")
    usage = day.lake.table(IMAGE_USAGE.name, day.partition)
    usage.write_bytes(usage.read_bytes()[:-10])
    manifest = day.lake.derived_manifest(day_of("2026-11-01").partition)
    manifest.write_bytes(manifest.read_bytes()[:-10])
    assert derive("2026-11-04")[1] == ["2026-11-01", "2026-11-02", "2026-11-04"]
    after = contents()
    for path, table in before.items():
        assert after[path].equals(table), path


@pytest.mark.parametrize("where", ["rows", "footer", "days"])
def test_history_that_differs_from_its_record_is_derived_again(four_days, where):
    """Damage is not reported as an engine error, and a replaced history is not continued."""
    lake = day_of("2026-11-04").lake
    history = lake.project_table(IMAGE_HISTORY.name, "default")
    content = bytearray(history.read_bytes())
    if where == "days":
        # Another project's content with the days of this history.
        metadata = {key.decode(): value.decode() for key, value in pq.read_schema(history).metadata.items()}
        with lake.writer(history, IMAGE_HISTORY, "forged", metadata=metadata):
            pass
    else:
        at = 10 if where == "rows" else len(content) - 100
        content[at : at + 20] = b"\xff" * 20
        history.write_bytes(content)
    publish("2026-11-05", {A: "a3", B: "b"})
    assert derive("2026-11-05")[1] == ["2026-11-05"]
    assert list(verify_derived(lake, "default")) == []
    names = pq.ParquetFile(history).read().to_pylist()
    assert [(row["id"], row["name"]) for row in names] == [(A, "a"), (A, "a2"), (A, "a3"), (B, "b"), (B, "b"), (B, "b")]


def test_derive_refuses_an_unpublished_day():
    with pytest.raises(ConfigurationError, match=r"^Nothing is published for 2026-11-01 of project default"):
        derive("2026-11-01")


def test_verify_reports_changed_removed_and_outdated_derived_files(four_days):
    day = day_of("2026-11-02")
    lake, changes = day.lake, day.lake.table(IMAGE_CHANGES.name, day.partition)

    def problems():
        return [(problem.path, problem.sentence) for problem in verify_derived(lake, "default")]

    assert problems() == []
    with lake.writer(changes, IMAGE_CHANGES, "forged"):
        pass
    again = "derive it again with `image-snapshots rebuild --date 2026-11-02 --project default`."
    assert problems() == [(str(changes.relative_to(lake.root)), f"The file was changed: {again}")]
    changes.unlink()
    assert problems() == [(str(changes.relative_to(lake.root)), f"The file is missing: {again}")]
    derive("2026-11-02")
    assert problems() == []
    history = lake.project_table(IMAGE_HISTORY.name, "default")
    metadata = {key.decode(): value.decode() for key, value in pq.read_schema(history).metadata.items()}
    with lake.writer(history, IMAGE_HISTORY, "forged", metadata=metadata):
        pass
    ((path, sentence),) = problems()
    assert path == "image_history/project=default/image_history.parquet"
    assert sentence.startswith("The file was changed: its SHA-256 is ")
    # With a corrected hash: the history is derived again.
    facts = {"sha256": history.sha256(), "bytes": history.stat().st_size, "rows": 0}
    forge_record(lake.derived_manifest(day.partition), lambda said: said["history"].update(facts))
    ((path, sentence),) = problems()
    assert path == "image_history/project=default/image_history.parquet"
    assert sentence.startswith("The history is not what the complete days give: the number of rows differs.")
