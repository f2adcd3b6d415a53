"""Dagster's run storage: one process at a time sets it up, and a run continues without it if it is broken."""

import fcntl
import os
import shutil
import sqlite3
import traceback

import dagster as dg
import pytest

from assets.run_history import open_run_history, use_instance_home
from pipelines.errors import ConfigurationError
from pipelines.lake import locks
from pipelines.settings import ROOT


def opened():
    """Whether runs are kept, and the warnings."""
    said = []
    with open_run_history(said.append) as instance:
        assert instance.get_runs() == []
        return instance.is_persistent, said


def test_intact_storage_is_opened_without_a_warning(home):
    assert opened() == (True, [])


def test_step_output_is_not_captured_by_processes_that_ctrl_c_reaches(home):
    with (
        open_run_history(print) as instance,
        instance.compute_log_manager.capture_logs(["run", "log", "step"]) as context,
    ):
        assert instance.is_persistent
        assert context.log_key == ["run", "log", "step"]
        assert not (home / "storage" / "run").exists()


def test_second_opener_waits_while_the_storage_is_set_up(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    other = (tmp_path / "home" / ".setup.lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    seen = []

    def wait(_):
        seen.append((tmp_path / "home" / "history").exists())
        other.close()

    monkeypatch.setattr(locks.time, "sleep", wait)
    assert opened() == (True, [])
    assert seen == [False]


def test_parallel_first_runs_all_open_the_storage(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    begin, ready = os.pipe()
    children = []
    for _ in range(4):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                os.close(ready)
                os.read(begin, 1)
                status = 0 if opened() == (True, []) else 2
            except BaseException:  # noqa: BLE001  (nothing of a fork may go back to pytest)
                traceback.print_exc()
            os._exit(status)
        children.append(pid)
    os.close(begin)
    os.close(ready)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0, 0]
    assert opened() == (True, [])


def no_yaml(home):
    (home / "dagster.yaml").write_text("storage: [")


def unknown_setting(home):
    (home / "dagster.yaml").write_text("no_such_setting: 1\n")


def no_database(home):
    for path in (home / "history").rglob("*.db"):
        path.write_bytes(b"no database" * 1000)


def set_up_by_two_at_once(home):
    """A storage as two parallel set-ups used to leave it: with two rows instead of one."""
    with sqlite3.connect(home / "history" / "runs.db") as database:
        database.execute("INSERT INTO alembic_version VALUES ('5771160a95ad')")
    database.close()


def half_set_up(home):
    with sqlite3.connect(home / "history" / "runs.db") as database:
        database.execute("DROP TABLE runs")
    database.close()


def files_for_directories(home):
    shutil.rmtree(home / "history")
    (home / "history").write_text("")


def variable_not_set(home):
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)


def lock_is_a_directory(home):
    (home / ".setup.lock").unlink(missing_ok=True)
    (home / ".setup.lock").mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        no_yaml,
        unknown_setting,
        no_database,
        set_up_by_two_at_once,
        half_set_up,
        files_for_directories,
        variable_not_set,
        lock_is_a_directory,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_unusable_storage_gives_a_warning_and_the_run_continues(spoil, home):
    spoil(home)
    is_kept, (sentence,) = opened()
    assert not is_kept
    assert "Dagster's own storage" in sentence
    assert str(home) in sentence
    assert "\n" not in sentence


def test_unwritable_home_gives_a_warning_and_the_run_continues(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "file" / "home"))
    is_kept, (sentence,) = opened()
    assert not is_kept
    assert "set DAGSTER_HOME to a directory" in sentence
    with pytest.raises(ConfigurationError, match="set DAGSTER_HOME to a directory"):
        use_instance_home()


def test_error_of_the_caller_is_not_translated(home):
    with pytest.raises(ZeroDivisionError), open_run_history(print):
        raise ZeroDivisionError


def test_opened_storage_is_the_one_that_dagster_opens(home):
    with open_run_history(print) as ours, dg.DagsterInstance.get() as theirs:
        assert ours.run_storage.get_run_storage_id() == theirs.run_storage.get_run_storage_id()
