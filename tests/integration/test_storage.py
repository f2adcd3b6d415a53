"""The one interface of storage: a directory and an object store do the same."""

import hashlib
import io
import subprocess
import sys
from contextlib import closing

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import PartitionBusyError, StorageError
from pipelines.lake.paths import open_storage


@pytest.fixture(params=["directory", "object store"])
def root(request, tmp_path):
    if request.param == "directory":
        return open_storage(str(tmp_path / "deep" / "lake"))
    return open_storage(request.getfixturevalue("s3").make_bucket("storage") + "/deep/lake")


def keys(root):
    return [path.relative_to(root).as_posix() for path in root.all_files()]


def test_file_appears_whole_and_replaces_the_one_before_it(root):
    path = root / "a" / "b.json"
    assert not path.is_there()
    path.write_whole(b"one")
    with path.writing() as file:
        file.write(b"tw")
        assert path.read_whole() == b"one"
        file.write(b"o")
    assert (path.read_whole(), path.size(), path.stat().st_size) == (b"two", 3, 3)
    assert path.sha256() == hashlib.sha256(b"two").hexdigest()
    with path.open("rb") as file:
        assert file.read() == b"two"
    with pytest.raises(ZeroDivisionError), path.writing() as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_whole() == b"two"
    assert keys(root) == ["a/b.json"]


def test_paths_have_the_same_parts(root):
    path = root / "a" / "b=1" / "c.json"
    assert (path.name, path.stem, path.parent.name) == ("c.json", "c", "b=1")
    assert path.relative_to(root).as_posix() == "a/b=1/c.json"
    assert root / "a" / "b=1" < root / "a" / "b=2"
    assert path.uri.endswith("/deep/lake/a/b=1/c.json")
    assert (path.local is None) == path.uri.startswith("s3://")


def test_files_are_matched_part_by_part(root):
    for key in ("x/dt=1/p=a.json", "x/dt=2/p=a.json", "x/dt=2/p=b.json", "x/dt=2/deep/p=a.json", "y/dt=1/p=a.json"):
        (root / key).write_whole(key.encode())
    found = {"dt=1/p=a.json": b"x/dt=1/p=a.json", "dt=2/p=a.json": b"x/dt=2/p=a.json"}
    directory = root / "x"
    assert [path.relative_to(directory).as_posix() for path in directory.matching("dt=*/p=a.json")] == list(found)
    stats = directory.stats("dt=*/p=a.json")
    assert [(path.relative_to(directory).as_posix(), stat.st_size) for path, stat in stats] == [
        (key, len(content)) for key, content in found.items()
    ]
    contents = directory.contents("dt=*/p=a.json")
    assert {path.relative_to(directory).as_posix(): content for path, content in contents.items()} == found
    assert directory.matching("*") == (root / "none").matching("*/*") == []


def test_replace_by_copies_a_file_and_remove_deletes_it(root):
    source, target = root / "staged" / "t", root / "table" / "dt=1" / "t"
    source.write_whole(b"new")
    target.write_whole(b"old")
    target.replace_by(source)
    assert (source.read_whole(), target.read_whole()) == (b"new", b"new")
    target.check_within(root)
    target.remove()
    target.remove()
    assert not target.is_there()
    (root / "staged").remove_tree()
    (root / "staged").remove_tree()
    assert keys(root) == []


def test_reading_a_missing_file_raises_one_sentence(root):
    for read in ((root / "none").read_whole, (root / "none").sha256, (root / "none").size):
        with pytest.raises(StorageError, match=r"^The storage failed at .*/deep/lake/none: .+\.$"):
            read()


def test_held_name_is_refused_to_others_until_the_block_ends(root):
    place, told = root / "_locks" / "a", []

    def busy(facts):
        told.append(facts)
        raise PartitionBusyError("busy")

    def facts(holder):
        return {"holder": holder, "pid": "1", "host": "here", "since": f"2026-11-23T12:00:0{len(holder)}"}

    with place.held(facts("a"), busy):
        with (root / "_locks" / "b").held(facts("b"), busy):
            pass
        with pytest.raises(PartitionBusyError), place.held(facts("cc"), busy):
            pass
    with place.held(facts("ddd"), busy):
        pass
    assert [said["holder"] for said in told] == ["a"]


def test_engine_reads_files_of_the_directory_and_no_others(root):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    inside, outside = root / "in" / "t.parquet", root / "t.parquet"
    inside.write_whole(buffer.getvalue())
    outside.write_whole(buffer.getvalue())
    files = (root / "in").reader()
    assert files.name_of(inside).startswith(files.prefix)
    with closing(duckdb.connect()) as connection:
        connection.register_filesystem(files)
        assert connection.sql(f"FROM read_parquet('{files.name_of(inside)}')").fetchall() == [(1,)]
        name = outside.uri if outside.local is None else f"{files.prefix}../t.parquet"
        with pytest.raises(duckdb.Error, match="is not in the lake"):
            connection.sql(f"FROM read_parquet('{name}')").fetchall()
        with pytest.raises(duckdb.Error, match="is read-only here"):
            connection.sql(f"COPY (SELECT 1) TO '{files.prefix}new.parquet'")


def test_reading_a_file_that_is_not_there_is_one_error(tmp_path):
    script = """
import sys
from pipelines.lake.paths import open_storage
try:
    open_storage(sys.argv[1]).reader().open("lake://nothing.parquet")
except FileNotFoundError:
    print("not there")
"""
    # In this mode Python shows errors of what is thrown away, as every version from 3.13 on does.
    command = [sys.executable, "-X", "dev", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("not there\n", "")
