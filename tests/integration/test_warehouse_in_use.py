"""A DuckDB warehouse that others have open: they keep their rows, and the load works at once and says so."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys

import duckdb
import pytest

from pipelines.errors import PartitionBusyError, StorageError
from pipelines.lake import locks
from pipelines.warehouse.duckdb import open_duckdb

HOLDER = """
import itertools, sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "readers")
for query in itertools.chain(["SELECT * FROM t"], sys.stdin):
    sys.stdout.write(repr(connection.execute(query).fetchall()) + "\\n")
    sys.stdout.flush()
"""


class Holder:
    """A process that has the file open, as a notebook does."""

    def __init__(self, process):
        self.process = process
        self.pid = process.pid
        assert self.answer() == "[(1,)]"

    def answer(self):
        return self.process.stdout.readline().strip()

    def ask(self, query):
        self.process.stdin.write(query + "\n")
        self.process.stdin.flush()
        return self.answer()

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def path(tmp_path):
    """A warehouse with a user's own table of one row."""
    path = tmp_path / "w" / "w.duckdb"
    path.parent.mkdir()
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    return path


@pytest.fixture
def hold(path):
    with contextlib.ExitStack() as stack:

        def start(how):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, str(path), how],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return Holder(process)

        yield start


def load(path, value=2):
    with open_duckdb(path) as warehouse:
        warehouse.execute(f"INSERT INTO t VALUES ({value})")


def rows(path):
    with duckdb.connect(path, read_only=True) as connection:
        return [value for (value,) in connection.execute("SELECT * FROM t ORDER BY a").fetchall()]


def beside(path):
    return sorted(file.name for file in path.parent.iterdir() if file != path)


def busy(path, pid):
    return (
        f"The warehouse {path} is being changed by process {pid}, so nothing was loaded: close it there, or open it "
        "with read_only=True, and load again."
    )


@pytest.mark.parametrize("how", ["readers", "a writer"])
def test_open_reader_keeps_the_old_rows_and_new_readers_see_the_new(how, path, hold, caplog):
    path.chmod(0o640)
    holder = hold(how)
    with open_duckdb(path) as warehouse:
        (said,) = (record.message for record in caplog.records)
        assert said == (
            f"The warehouse {path} is open in process {holder.pid}, so a copy is loaded and replaces it: process "
            f"{holder.pid} sees the old rows until it opens the file again."
        )
        warehouse.execute("INSERT INTO t VALUES (2)")
    assert holder.ask("SELECT * FROM t") == "[(1,)]"
    assert rows(path) == [1, 2]
    assert path.stat().st_mode & 0o777 == 0o640
    assert beside(path) == [".w.duckdb.lock"]
    holder.kill()
    load(path, 3)
    assert rows(path) == [1, 2, 3]


def test_unused_file_is_loaded_in_place(path, caplog):
    inode = path.stat().st_ino
    load(path)
    assert (rows(path), path.stat().st_ino, caplog.records) == ([1, 2], inode, [])


def test_link_stays_a_link(path, hold):
    hold("readers")
    link = path.parent.parent / "link.duckdb"
    link.symlink_to(path)
    load(link)
    assert link.is_symlink()
    assert rows(path) == [1, 2]


def test_file_with_changes_of_another_process_is_not_replaced(path, hold):
    holder = hold("a writer")
    holder.ask("INSERT INTO t VALUES (7)")
    with pytest.raises(PartitionBusyError) as caught:
        load(path)
    assert str(caught.value) == busy(path, holder.pid)
    assert beside(path) == [".w.duckdb.lock", "w.duckdb.wal"]
    assert holder.ask("CHECKPOINT") == "[]"
    load(path)
    assert rows(path) == [1, 2, 7]


def test_file_changed_while_its_copy_is_loaded_is_not_replaced(path, hold):
    holder = hold("a writer")
    with pytest.raises(PartitionBusyError) as caught, open_duckdb(path) as warehouse:
        warehouse.execute("INSERT INTO t VALUES (2)")
        holder.ask("INSERT INTO t VALUES (7)")
        holder.ask("CHECKPOINT")
    assert str(caught.value) == busy(path, holder.pid)
    holder.kill()
    assert rows(path) == [1, 7]


def test_rows_in_the_log_of_a_killed_load_are_in_the_copy(path, hold):
    killed = hold("a writer")
    killed.ask("INSERT INTO t VALUES (7)")
    killed.kill()
    # Now a log lies beside the file; whoever opens the file reads it.
    reader = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), "readers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout.readline() == "[(1,), (7,)]\n"
        load(path)
        assert rows(path) == [1, 2, 7]
        assert beside(path) == [".w.duckdb.lock"]
        reader.kill()


def test_later_writes_to_the_old_file_do_not_stop_the_next_load(path, hold, caplog):
    holder = hold("a writer")
    load(path)
    holder.ask("INSERT INTO t VALUES (7)")
    holder.kill()
    assert beside(path) == [".w.duckdb.lock", "w.duckdb.wal"]
    caplog.clear()
    load(path, 3)
    assert rows(path) == [1, 2, 3]
    assert beside(path) == [".w.duckdb.lock", "w.duckdb.wal.foreign"]
    (record,) = caplog.records
    assert "its log was moved to" in record.message


def test_failed_load_leaves_the_file_and_nothing_beside_it(path, hold):
    hold("readers")
    with pytest.raises(StorageError, match="Its previous content is intact"), open_duckdb(path) as warehouse:
        warehouse.execute("INSERT INTO t VALUES (2)")
        warehouse.execute("INSERT INTO nothing VALUES (2)")
    assert rows(path) == [1]
    assert beside(path) == [".w.duckdb.lock"]


def test_full_disk_is_one_sentence(path, hold, monkeypatch):
    holder = hold("readers")

    def full(source, target):
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError) as caught:
        load(path)
    assert str(caught.value) == (
        f"The warehouse {path} could not be loaded: it is open in process {holder.pid}, and there is no space for a "
        "copy beside it. Its previous content is intact: free some space, or close it there, and load again."
    )
    assert beside(path) == [".w.duckdb.lock"]


@pytest.mark.parametrize("is_held", [True, False])
def test_leftovers_of_a_killed_load_are_removed_by_the_next(is_held, path, hold):
    for name in (".w.duckdb.part", ".w.duckdb.part.wal"):
        (path.parent / name).write_text("half of it")
    if is_held:
        hold("readers")
    load(path)
    assert rows(path) == [1, 2]
    assert beside(path) == [".w.duckdb.lock"]


def test_parallel_loads_take_turns(path, hold, monkeypatch):
    hold("readers")
    other = (path.parent / ".w.duckdb.lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    waited = []

    def wait(_):
        waited.append(rows(path))
        # Like the end of the other load, which has swapped the file.
        shutil.copyfile(path, path.with_suffix(".other"))
        with duckdb.connect(path.with_suffix(".other")) as connection:
            connection.execute("INSERT INTO t VALUES (3)")
        path.with_suffix(".other").replace(path)
        other.close()

    monkeypatch.setattr(locks.time, "sleep", wait)
    load(path)
    assert (waited, rows(path)) == ([[1]], [1, 2, 3])


def test_load_that_never_ends_is_named(path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.0)
    with open_duckdb(path), pytest.raises(PartitionBusyError) as caught:
        load(path)
    assert re.fullmatch(
        rf"The warehouse {path} is held by a load \(process {os.getpid()} on .*\), which was waited for 0 minutes: "
        "wait for it to end, or stop it, and run again.",
        str(caught.value),
    )
