"""The lake's own promises: a file appears completely or not at all, and a partition has one holder."""

import datetime as dt
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigurationError, PartitionBusyError, StorageError, ValidationError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.tables import IMAGE_VALUES, SCHEMA_VERSION

DAY = dt.date(2026, 11, 23)
PARTITION = Partition(DAY, "default")


def values(count, start=0):
    return pa.table(
        {
            "snapshot_date": [DAY] * count,
            "project_id": ["p"] * count,
            "id": [f"{i:08d}" for i in range(start, start + count)],
            "field": ["dev_services"] * count,
            "position": list(range(count)),
            "value": ["SSH"] * count,
        },
        schema=IMAGE_VALUES.schema,
    )


def test_table_file_has_schema_metadata_and_row_groups(tmp_path):
    lake = Lake(str(tmp_path), "zstd")
    path = lake.table("image_values", PARTITION)
    with lake.writer(path, IMAGE_VALUES, "run-1", row_group_rows=100) as writer:
        for start in range(0, 250, 50):
            writer.write(values(50, start))
    assert path == tmp_path / "image_values/dt=2026-11-23/project=default/image_values.parquet"
    with pq.ParquetFile(path) as file:
        assert file.schema_arrow.equals(IMAGE_VALUES.schema)
        assert file.schema_arrow.metadata[b"image_snapshots.run_id"] == b"run-1"
        assert file.schema_arrow.metadata[b"image_snapshots.schema_version"] == str(SCHEMA_VERSION).encode()
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 50]
        column = file.metadata.row_group(0).column(2)
        assert column.compression == "ZSTD"
        assert column.statistics.min == "00000000"
    assert file.metadata.num_rows == writer.rows == 250


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_an_error_and_is_not_waited_for(tmp_path, kind):
    """Without the error, reading the one would never begin, and reading the other never end."""
    lake = Lake(str(tmp_path))
    path = lake.manifest(PARTITION)
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for read in (path.read_whole, path.sha256, lambda: lake.contents.manifests("default")):
        with pytest.raises(StorageError, match=f"it is no file: '{path}'"):
            read()


def test_file_is_not_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = LocalPath(tmp_path) / "a.json"
    for name in ("a.json", f".a.json.{os.getpid()}.part"):
        (tmp_path / name).symlink_to(victim)
        path.write_whole(b"{}")
        assert path.read_bytes() == b"{}"
        assert not path.is_symlink()
        path.unlink()
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(("setting", "codec"), [("snappy", "SNAPPY"), ("gzip", "GZIP"), ("none", "UNCOMPRESSED")])
def test_codec_is_taken_from_the_settings(tmp_path, setting, codec):
    lake = Lake(str(tmp_path), setting)
    with lake.writer(lake.root / "t.parquet", IMAGE_VALUES, "r") as writer:
        writer.write(values(3))
    assert pq.read_metadata(tmp_path / "t.parquet").row_group(0).column(0).compression == codec


def test_empty_table_is_a_readable_file(tmp_path):
    lake = Lake(str(tmp_path))
    with lake.writer(lake.root / "t.parquet", IMAGE_VALUES, "r"):
        pass
    assert pq.read_table(tmp_path / "t.parquet").schema.equals(IMAGE_VALUES.schema)


def test_failed_writer_keeps_the_old_file_only(tmp_path):
    lake = Lake(str(tmp_path))
    path = lake.root / "t.parquet"
    with lake.writer(path, IMAGE_VALUES, "r") as writer:
        writer.write(values(3))
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), lake.writer(path, IMAGE_VALUES, "r") as writer:
        writer.write(values(5))
        raise ZeroDivisionError
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["t.parquet"]


def test_a_batch_of_another_schema_is_refused(tmp_path):
    lake = Lake(str(tmp_path))
    with (
        pytest.raises(ValidationError, match="has the schema"),
        lake.writer(lake.root / "t", IMAGE_VALUES, "r") as writer,
    ):
        writer.write(pa.table({"id": ["a"]}))


def test_a_null_in_a_required_column_is_refused(tmp_path):
    lake = Lake(str(tmp_path))
    broken = values(2).set_column(2, IMAGE_VALUES.schema.field("id"), pa.array(["a", None]))
    with (
        pytest.raises(ValidationError, match="id holds 1 nulls"),
        lake.writer(lake.root / "t", IMAGE_VALUES, "r") as writer,
    ):
        writer.write(broken)


def test_staged_file_replaces_the_published_one_repeatedly(tmp_path):
    lake = Lake(str(tmp_path))
    staged = lake.staging(PARTITION) / "image_values.parquet"
    target = lake.table("image_values", PARTITION)
    for count in (2, 5):
        with lake.writer(staged, IMAGE_VALUES, "r") as writer:
            writer.write(values(count))
        # The second time, a run repeats the replacement after a kill before the manifest.
        for _ in range(2):
            lake.replace(staged, lake.table("image_values", PARTITION))
            assert pq.read_metadata(target).num_rows == count
            assert staged.exists()
            assert os.listdir(target.parent) == ["image_values.parquet"]


def test_leftovers_of_a_killed_replacement_are_removed(tmp_path):
    lake = Lake(str(tmp_path))
    staged = lake.staging(PARTITION) / "image_values.parquet"
    with lake.writer(staged, IMAGE_VALUES, "r") as writer:
        writer.write(values(2))
    left = lake.table("image_values", PARTITION).parent / ".image_values.parquet.4711.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    lake.replace(staged, lake.table("image_values", PARTITION))
    assert os.listdir(left.parent) == ["image_values.parquet"]


def test_two_holders_of_one_partition_exclude_each_other(tmp_path):
    lake = Lake(str(tmp_path))
    with lake.locks.partition(PARTITION, "run-1"):
        with pytest.raises(PartitionBusyError, match=rf"held by run run-1 \(process {os.getpid()} on "):
            with lake.locks.partition(PARTITION, "run-2"):
                pass
        with lake.locks.partition(Partition(DAY, "other"), "run-2"):
            pass
    with lake.locks.partition(PARTITION, "run-2"):
        pass


def test_killed_holder_releases_its_lock(tmp_path):
    code = (
        "import sys, time, datetime as dt; from pipelines.lake.layout import Lake, Partition\n"
        f"with Lake({str(tmp_path)!r}).locks.partition(Partition(dt.date(2026, 11, 23), 'default'), 'child'):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        with (
            pytest.raises(PartitionBusyError, match="run child"),
            Lake(str(tmp_path)).locks.partition(PARTITION, "mine"),
        ):
            pass
        child.kill()
        child.wait()
    with Lake(str(tmp_path)).locks.partition(PARTITION, "mine"):
        pass


def test_lake_below_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigurationError, match="IMAGE_SNAPSHOTS_LAKE"),
        Lake(str(tmp_path / "file")).locks.partition(PARTITION, "r"),
    ):
        pass


def test_unknown_kind_of_storage_is_refused():
    with pytest.raises(ConfigurationError, match="gs:// storage is not supported"):
        Lake("gs://bucket/lake")


def test_small_file_is_written_atomically(tmp_path):
    (LocalPath(tmp_path) / "a" / "b.json").write_whole(b"one")
    (LocalPath(tmp_path) / "a" / "b.json").write_whole(b"two")
    assert (tmp_path / "a" / "b.json").read_bytes() == b"two"
    assert os.listdir(tmp_path / "a") == ["b.json"]


def test_partitions_with_a_manifest_are_listed(tmp_path):
    lake = Lake(str(tmp_path))
    assert lake.contents.partitions() == lake.contents.unfinished() == []
    other = Partition(dt.date(2026, 11, 22), "team.a-b_c")
    for partition in (PARTITION, other):
        lake.manifest(partition).write_whole(b"{}")
    (lake.superseded_manifests("default") / "abc.json").write_whole(b"{}")
    (lake.staging(PARTITION) / "attempt.json").write_whole(b"{}")
    assert lake.contents.partitions() == [other, PARTITION]
    assert lake.contents.unfinished() == [PARTITION]
