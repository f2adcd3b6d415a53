"""Derived tables changed by somebody who knows about hashes: `verify` reports it all the same."""

import datetime as dt
import hashlib
import random
import re
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from once_per_run import once_per_run
from proved_days import A, B, C, forge_record, proved_day, publish_proved

from pipelines.derive.days import derive_days
from pipelines.lake.derived_manifests import newest_history_sha256
from pipelines.lake.layout import Lake
from pipelines.lake.retention_records import Rules
from pipelines.maintenance.compaction import compact
from pipelines.maintenance.retention import apply_retention
from pipelines.maintenance.verify import verify
from pipelines.maintenance.verify_tables import false_statistics
from pipelines.report.page import write_report
from pipelines.settings import Settings
from pipelines.tables import ANALYSIS_TABLES, AUDIT_FINDINGS, IMAGE_COSTS, IMAGE_HISTORY
from pipelines.warehouse.loading import load_project

DATES = ("2025-10-01", "2025-10-02", "2025-11-01")
NOW = dt.datetime(2025, 11, 2, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    """Three days, the second published twice, with everything that can be derived from them."""

    def make(root):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            publish_proved(proved_day(DATES[0]), {A: "PUBLIC", B: "PUBLIC"})
            publish_proved(proved_day(DATES[1]), {A: "PUBLIC"})
            derive_days(proved_day(DATES[1]))
            publish_proved(proved_day(DATES[1]), {A: "PUBLIC", B: "PUBLIC"}, hour=13)
            derive_days(proved_day(DATES[1]))
            publish_proved(proved_day(DATES[2]), {A: "PUBLIC", B: "PUBLIC", C: "PUBLIC"})
            derive_days(proved_day(DATES[2]))
            lake = Lake("lake")
            apply_retention(lake, "default", Rules(responses_days=32, snapshots_days=None), NOW)
            compact(lake, "default", "2025-10", NOW)
            for date in DATES:
                write_report(lake, proved_day(date).partition)
            load_project(lake, proved_day(DATES[2]).partition, None)
        return root / "lake"

    return once_per_run(tmp_path_factory, "proved-days", make)


@pytest.fixture
def lake(proved, tmp_path):
    shutil.copytree(proved, tmp_path / "lake")
    return Lake("lake")


def problems(lake, notes=None, **options):
    """Sentences by path; everything is derived again unless `quick`."""
    options = {"settings": Settings(lake="lake"), "is_whole_lake": True, **options}
    found = verify(lake, lake.contents.partitions(), on_note=([] if notes is None else notes).append, **options)
    return {problem.path: problem.sentence for problem in found}


def last(lake):
    return lake.derived_manifest(proved_day(DATES[2]).partition)


def replace_file(lake, date, name, table):
    """Write another table and correct its derived manifest; returns the path."""
    partition = proved_day(date).partition
    path = lake.table(name, partition)
    pq.write_table(table, path)
    facts = {"sha256": path.sha256(), "bytes": path.stat().st_size, "rows": len(table)}
    forge_record(lake.derived_manifest(partition), lambda said: said["files"][name].update(facts))
    return lake.key(path)


def findings(lake, date):
    return pq.read_table(lake.table(AUDIT_FINDINGS.name, proved_day(date).partition), partitioning=None)


def test_untouched_lake_has_no_problems(lake):
    notes = []
    assert problems(lake, notes) == {}
    assert {note.path for note in notes} == {"", "_derived", "warehouse.duckdb"}
    (note,) = (note.sentence for note in notes if note.path == "_derived")
    assert note == (
        "1 derived tables of project default could not be derived again, because retention removed the files "
        "that they were made from: the chain of records proves them."
    )


def test_every_flipped_byte_of_a_trusted_file_is_reported(lake):
    """Seeded, so that a failure can be reproduced; some flips are at the ends, where formats have their footers."""
    chance = random.Random(11)
    kinds = {}
    for path in sorted(lake.root.rglob("*.*")):
        if path.suffix in (".json", ".parquet", ".html"):
            kinds.setdefault(re.sub(r"[0-9a-f]{64}|[0-9]", "", lake.key(path)), []).append(path)
    # 23 tables of a day and the history, 15 monthly ones, the report; and 6 kinds of records.
    assert len(kinds) == 23 + 1 + 15 + 1 + 6
    flips = []
    for paths in kinds.values():
        path = chance.choice(paths)
        flipped = bytearray(path.read_bytes())
        size = len(flipped)
        at = chance.choice([chance.randrange(size), chance.randrange(max(0, size - 20), size)])
        flipped[at] ^= 1 << chance.randrange(8)
        flips.append((path, at, flipped))
    # A changed record casts doubt on others, so each is changed alone.
    for path, at, flipped in flips:
        if path.suffix == ".json":
            content = path.read_bytes()
            path.write_bytes(flipped)
            found = problems(lake, quick=True)
            path.write_bytes(content)
            key = lake.key(path)
            assert key in found or any(key in sentence for sentence in found.values()), (key, at, found)
    # Each of the others is reported by itself.
    others = {lake.key(path): at for path, at, _ in flips if path.suffix != ".json"}
    assert len(others) == 40
    for path, _, flipped in flips:
        if path.suffix != ".json":
            path.write_bytes(flipped)
    found = problems(lake, quick=True)
    assert {key: at for key, at in others.items() if key not in found} == {}


@pytest.mark.parametrize(
    "name",
    ["image_history/project=default/image_history.parquet", "images/dt=2025-10-02/project=default/images.parquet"],
)
@pytest.mark.parametrize("place", ["middle", "footer"])
def test_damage_is_reported_without_an_engine_error(lake, name, place):
    path = lake.root / name
    content = bytearray(path.read_bytes())
    at = len(content) // 2 if place == "middle" else len(content) - 30
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    found = problems(lake)
    assert found[name].startswith("The file was changed")


def test_damage_with_a_corrected_hash_is_reported(lake):
    name = "image_history/project=default/image_history.parquet"
    path = lake.root / name
    path.write_bytes(path.read_bytes()[:-10] + b"\0" * 10)
    forge_record(last(lake), lambda said: said["history"].update(sha256=path.sha256()))
    assert problems(lake)[name].startswith("It cannot be read completely: ")


def test_false_statistic_of_the_history_is_reported_despite_a_corrected_hash(lake):
    path = lake.project_table(IMAGE_HISTORY.name, "default")
    assert pq.read_table(path, filters=pc.field("visibility") == "PUBLIC", partitioning=None).num_rows == 3
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    assert b"PUBLIC" in content[footer:]
    path.write_bytes(content[:footer] + content[footer:].replace(b"PUBLIC", b"PUBLIB"))
    assert pq.read_table(path, filters=pc.field("visibility") == "PUBLIC", partitioning=None).num_rows == 0
    assert problems(lake, quick=True)[lake.key(path)].startswith("The file was changed: its SHA-256 is ")
    forge_record(last(lake), lambda said: said["history"].update(sha256=path.sha256()))
    assert problems(lake)[lake.key(path)] == (
        "The footer's values of visibility differ from those of the rows, so engines may skip rows."
    )


def test_correct_statistics_of_every_type_are_accepted(tmp_path):
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    columns = {
        "text": pa.array(["b", None, "é"]),
        "time": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
        "day": pa.array([moment.date(), None, None], pa.date32()),
        "flag": pa.array([True, False, None]),
        "number": pa.array([-0.0, 0.0, float("nan")]),
        "count": pa.array([1, -1, None], pa.int32()),
        "bytes": pa.array([b"\xff", b"", None]),
        "nothing": pa.array([None] * 3, pa.string()),
        "long": pa.array(["x" * 9000] * 3),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    pq.write_table(pa.table(columns).slice(0, 0), tmp_path / "empty.parquet")
    assert list(false_statistics(tmp_path / "a.parquet")) == []
    assert list(false_statistics(tmp_path / "empty.parquet")) == []


def test_findings_removed_from_an_older_day_break_the_chain(lake):
    replace_file(lake, DATES[1], AUDIT_FINDINGS.name, findings(lake, DATES[1]).slice(1))
    found = problems(lake, quick=True)
    # The next derived manifest, and the next manifest, name the original one.
    assert {
        "_derived/dt=2025-11-01/project=default.json",
        "_manifests/dt=2025-11-01/project=default.json",
    } <= found.keys()
    for sentence in found.values():
        assert "derived manifest" in sentence


def test_findings_and_costs_removed_from_the_newest_day_are_reported(lake):
    """The derived manifest is the newest, so only deriving again can detect it."""
    path = replace_file(lake, DATES[2], AUDIT_FINDINGS.name, findings(lake, DATES[2]).slice(1))
    costs = pq.read_table(lake.table(IMAGE_COSTS.name, proved_day(DATES[2]).partition), partitioning=None)
    costs_path = replace_file(lake, DATES[2], IMAGE_COSTS.name, costs.slice(1))
    # Whoever forges the derived manifest must forge the report, too.
    lake.report(proved_day(DATES[2]).partition).unlink()
    assert problems(lake, quick=True) == {}
    found = problems(lake)
    assert found[path].startswith("The table does not follow from the published days: finding_id of ")
    assert costs_path in found


def test_forged_figures_of_the_newest_day_are_reported(lake):
    forge_record(last(lake), lambda said: said["summary"].update(images=2))
    report = lake.report(proved_day(DATES[2]).partition)
    assert problems(lake, quick=True)[lake.key(report)].startswith("It names a derived manifest with SHA-256 ")
    report.unlink()
    assert problems(lake) == {
        "_derived/dt=2025-11-01/project=default.json": "Its figures do not follow from the published days. Restore it "
        "from a backup, or derive it again with `image-snapshots rebuild --date 2025-11-01 --project default`.",
    }


def test_derived_manifest_of_another_shape_is_reported(lake):
    forge_record(last(lake), lambda said: said.update(history=[]))
    assert newest_history_sha256(lake, "default") is None
    sentence = problems(lake, quick=True)["image_history/project=default/image_history.parquet"]
    assert sentence.startswith("No derived manifest names this file")


def test_exchanged_derived_manifests_are_reported(lake):
    one, other = (lake.derived_manifest(proved_day(date).partition) for date in DATES[:2])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    found = problems(lake, quick=True)
    assert found[lake.key(one)] == (
        "It is the record of 2025-10-02 of project default: it was moved or copied to the place of 2025-10-01 of "
        "project default."
    )
    assert lake.key(other) in found


def test_different_price_book_is_a_note_not_a_problem(lake, tmp_path):
    book = tmp_path / "prices.toml"
    book.write_text('currency = "EUR"\n[[price]]\nvalid_from = 2020-01-01\nper_gb_month = 1.0\n')
    notes = []
    assert problems(lake, notes, settings=Settings(lake="lake", price_book=book)) == {}
    assert any(
        note.sentence.startswith("2 derived tables of project default could not be derived again, because the ")
        and "the price book changed since" in note.sentence
        for note in notes
    )
    # An unreadable price book is not the lake's fault, either.
    notes.clear()
    assert problems(lake, notes, settings=Settings(lake="lake", price_book=tmp_path / "none.toml")) == {}
    assert any("Nothing of project default was derived again: The price book " in note.sentence for note in notes)


def test_changed_or_moved_report_is_reported(lake):
    path, other = (lake.report(proved_day(date).partition) for date in DATES[1:])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"finding", b"f1nding", 1))
    again = "write it again with `image-snapshots report --date 2025-10-02 --project default`."
    assert problems(lake, quick=True) == {lake.key(path): f"The report was changed or damaged: {again}"}
    path.write_bytes(other.read_bytes())
    assert problems(lake, quick=True) == {
        lake.key(path): f"It is the report of another day, moved or copied here: {again}"
    }


def test_removed_derived_tables_of_the_newest_day_are_reported(lake):
    for path in sorted(lake.root.glob(f"*/dt={DATES[2]}")):
        if path.parent.name == "_derived" or path.parent.name in ANALYSIS_TABLES:
            shutil.rmtree(path)
    found = problems(lake)
    assert "somebody removed its record" in found["image_history/project=default/image_history.parquet"]
    assert found["reports/dt=2025-11-01/project=default/report.html"].startswith("It names a derived manifest")


def remove_newest_day(lake):
    for path in sorted(lake.root.glob(f"*/dt={DATES[2]}")):
        if path.parent.name not in ("_derived", "reports"):
            shutil.rmtree(path)


def test_removed_newest_day_is_reported_with_all_its_traces(lake):
    digest = hashlib.sha256(lake.manifest(proved_day(DATES[2]).partition).read_bytes()).hexdigest()
    remove_newest_day(lake)
    sentence = problems(lake)["_manifests/dt=2025-11-01/project=default.json"]
    assert sentence == (
        "_derived/dt=2025-11-01/project=default.json, _retention/project=default/000001.json, "
        "image_history/project=default/image_history.parquet, reports/dt=2025-11-01/project=default/report.html, "
        f"warehouse.duckdb know this manifest by its SHA-256 {digest}, and it is missing. Restore the day from a "
        "backup, and keep the files that name it."
    )
    # One trace is enough.
    shutil.rmtree(lake.root / "_derived" / f"dt={DATES[2]}")
    shutil.rmtree(lake.root / "reports" / f"dt={DATES[2]}")
    shutil.rmtree(lake.root / "_retention")
    shutil.rmtree(lake.root / "image_history")
    assert problems(lake)["_manifests/dt=2025-11-01/project=default.json"].startswith(
        f"warehouse.duckdb knows this manifest by its SHA-256 {digest}, and it is missing."
    )


def test_project_without_any_day_left_is_reported(lake):
    for date in DATES:
        for path in sorted(lake.root.glob(f"*/dt={date}")):
            shutil.rmtree(path)
    shutil.rmtree(lake.root / "_manifests" / "superseded")
    found = problems(lake)
    assert {f"_manifests/dt={date}/project=default.json" for date in DATES} <= found.keys()


def test_advice_is_to_restore_what_retention_made_underivable(lake):
    findings = lake.table(AUDIT_FINDINGS.name, proved_day(DATES[0]).partition)
    history = lake.project_table(IMAGE_HISTORY.name, "default")
    findings.unlink()
    history.unlink()
    found = problems(lake, quick=True)
    assert found[lake.key(findings)] == (
        "The file is missing: restore it from a backup: retention removed the files that it was made from."
    )
    sentence = found[lake.key(history)]
    assert sentence.startswith("The file is missing: restore it from a backup: it cannot be derived again")


def test_monthly_file_without_a_manifest_is_a_note(lake):
    lake.monthly_manifest("2025-10", "default").unlink()
    notes = []
    assert problems(lake, notes, quick=True) == {}
    assert "_monthly/images/month=2025-10/project=default/images.parquet" in {
        note.path for note in notes if note.sentence.startswith("No monthly manifest names it")
    }
