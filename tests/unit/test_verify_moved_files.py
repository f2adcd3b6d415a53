"""Intact days and projects in wrong places: `verify` reports each."""

import datetime as dt
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from proved_days import A, B, C, forge_record, proved_day, publish_proved

from pipelines.errors import StorageError
from pipelines.lake.clock import check_clock
from pipelines.lake.layout import Lake
from pipelines.maintenance.verify import verify
from pipelines.tables import TABLES

DATES = ("2025-10-01", "2025-10-02")


@pytest.fixture(scope="module")
def two_projects(tmp_path_factory):
    """Two days of two projects."""
    root = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        for number, date in enumerate(DATES):
            publish_proved(proved_day(date), {A: "PRIVATE", B: "PUBLIC"}, hour=10 + number, with_registry=True)
            publish_proved(proved_day(date, "other"), {C: "PRIVATE"}, hour=10 + number)
    return root / "lake"


@pytest.fixture
def lake(two_projects, tmp_path):
    shutil.copytree(two_projects, tmp_path / "lake")
    return Lake("lake")


def problems(lake, **options):
    return {problem.path: problem.sentence for problem in verify(lake, lake.contents.partitions(), **options)}


def directories(lake, name):
    """The names of a day or project among tables and manifests."""
    return [path for path in sorted(lake.root.rglob(f"{name}*")) if "_staging" not in path.parts]


def exchange(one, other):
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def test_days_in_their_places_have_no_problems(lake):
    assert problems(lake) == {}


def test_exchanged_days_are_reported(lake):
    for one in directories(lake, f"dt={DATES[0]}"):
        exchange(one, one.with_name(f"dt={DATES[1]}"))
    found = problems(lake)
    assert found["_manifests/dt=2025-10-01/project=default.json"] == (
        "It is the manifest of 2025-10-02 of project default: it was moved or copied to the place of 2025-10-01 of "
        "project default."
    )
    assert found.keys() == {
        f"_manifests/dt={date}/project={project}.json" for date in DATES for project in ("default", "other")
    }


def test_exchanged_projects_are_reported(lake):
    for one in directories(lake, "project=default"):
        if one.suffix != ".lock":
            exchange(one, one.with_name(one.name.replace("default", "other")))
    found = problems(lake)
    assert found["_manifests/dt=2025-10-02/project=other.json"] == (
        "It is the manifest of 2025-10-02 of project default: it was moved or copied to the place of 2025-10-02 of "
        "project other."
    )
    assert len(found) == 4


def test_day_moved_to_an_invented_date_is_reported(lake):
    for one in directories(lake, f"dt={DATES[1]}"):
        one.rename(one.with_name("dt=2025-09-09"))
    assert problems(lake)["_manifests/dt=2025-09-09/project=default.json"] == (
        "It is the manifest of 2025-10-02 of project default: it was moved or copied to the place of 2025-09-09 of "
        "project default."
    )


def test_copied_project_is_reported(lake):
    for one in directories(lake, "project=default"):
        clone = one.with_name(one.name.replace("default", "clone"))
        if one.is_dir():
            shutil.copytree(one, clone)
        elif one.suffix == ".json":
            shutil.copy(one, clone)
    found = problems(lake)
    assert found.keys() == {f"_manifests/dt={date}/project=clone.json" for date in DATES}


@pytest.mark.parametrize("name", [name for name in TABLES if name not in ("image_values", "image_tags")])
@pytest.mark.parametrize("column", ["snapshot_date", "project"])
def test_rows_of_another_day_or_project_are_reported_despite_matching_hashes(lake, name, column):
    """The newest day, so that no later manifest proves it."""
    day = proved_day(DATES[1])
    path = lake.table(name, day.partition)
    table = pq.read_table(path, partitioning=None)
    key = column if column == "snapshot_date" else "project_key" if name == "inventory" else "project_id"
    wrong = day.partition.date + dt.timedelta(days=1) if key == column else "x"
    values = pa.array([wrong] * len(table), table.schema.field(key).type)
    field = table.schema.field(key)
    pq.write_table(table.set_column(table.schema.get_field_index(key), field, values), path)
    facts = {"sha256": path.sha256(), "bytes": path.stat().st_size}
    forge_record(lake.manifest(day.partition), lambda said: said["files"][name].update(facts))
    assert problems(lake, quick=True)[lake.key(path)].startswith(f"The file has rows whose {key} does not match ")


def test_manifest_that_names_another_place_is_reported(lake):
    day = proved_day(DATES[1])
    other = lake.key(lake.table("images", proved_day(DATES[0]).partition))
    forge_record(lake.manifest(day.partition), lambda said: said["files"]["images"].update(path=other))
    assert problems(lake, quick=True)["_manifests/dt=2025-10-02/project=default.json"] == (
        f"It names {other} as its table images, which is not the place of that table."
    )


def test_manifest_older_than_its_predecessor_is_reported(lake):
    """A clock that is behind the lake."""
    path = lake.manifest(proved_day(DATES[1]).partition)
    forge_record(path, lambda said: said.update(published_at="2025-10-01T10:00:00Z"))
    assert problems(lake, quick=True) == {
        lake.key(path): "It says that it was published at 2025-10-01 10:00:00.000000 UTC, which is not after the "
        "manifest that it follows (2025-10-01 10:00:00.000000): a clock was wrong, or a time was changed."
    }


def test_time_without_a_zone_is_damage_for_every_reader(lake):
    path = lake.manifest(proved_day(DATES[1]).partition)
    forge_record(path, lambda said: said.update(published_at=said["published_at"].removesuffix("Z")))
    assert "is damaged (published_at: " in problems(lake, quick=True)[lake.key(path)]
    with pytest.raises(StorageError, match=r"is damaged \(published_at: "):
        check_clock(lake, "default", dt.datetime(2025, 10, 3, tzinfo=dt.UTC))


def test_hand_edited_record_fails_its_own_hash(lake):
    path = lake.manifest(proved_day(DATES[1]).partition)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": "somebody-else"}))
    assert problems(lake, quick=True) == {
        lake.key(path): "The record does not have the SHA-256 that it states for itself: it was changed or damaged. "
        "Restore it from a backup."
    }


def test_unknown_files_are_problems_or_notes(lake):
    source = lake.table("images", proved_day(DATES[0]).partition)
    beside = {
        "images/dt=2025-10-01.bak/project=default/images.parquet": "No record names this file, and readers may take it",
        "images/dt=2025-10-01/project=default/more.parquet": "The file does not belong to the published day.",
        "images/dt=2025-09-01/project=default/images.parquet": "No manifest names this file",
        "image_costs/dt=2025-09-01/project=default/image_costs.parquet": "Nothing is published for the day of this",
    }
    unseen = {
        "images.bak/dt=2025-10-01/project=default/images.parquet": ("images.bak", "Not part of the lake: 1 files"),
        "_manifests/dt=2025-10-01.bak/project=default.json": ("_manifests/dt=2025-10-01.bak", "Not part of the lake"),
        "reports/dt=2025-10-01/project=default/.report.html.1.part": (None, "Left over from an interrupted write"),
        "_staging/dt=2025-10-03/project=default/attempt.json": (
            "_staging/dt=2025-10-03/project=default",
            "Not checked: 1 files of an attempt that has not ended.",
        ),
        "notes.txt": ("notes.txt", "Not part of the lake"),
        # Digits, but not those of a record's or a month's name.
        "_retention/project=default/\u0661\u0661\u0661\u0661\u0661\u0661.json": (
            "_retention/project=default",
            "Not part of the lake",
        ),
        "_monthly/month=\u0662\u0660\u0662\u0665-10/project=default.json": (
            "_monthly/month=\u0662\u0660\u0662\u0665-10",
            "Not part of the lake",
        ),
    }
    for name in (*beside, *unseen):
        (lake.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, lake.root / name)
    notes = {}
    found = problems(lake, quick=True, on_note=lambda note: notes.update({note.path: note.sentence}))
    assert found.keys() == beside.keys()
    for path, sentence in beside.items():
        assert found[path].startswith(sentence)
    for path, (place, sentence) in unseen.items():
        assert notes[place or path].startswith(sentence)
    assert notes[""].startswith("Not checked: 2 locks")
