"""Commands start without libraries that they have no use for, and import the others without garbage collection."""

import gc
import subprocess
import sys

import pytest
from published_days import day_of, publish_snapshot

from assets.importing import lasting_imports

HEAVY = ("dagster", "matplotlib", "httpx")
# A process of its own: what a test process has imported stays in it.
SCRIPT = """
import sys
from assets.cli import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["status"], ["query", "SELECT 1 AS one"]])
def test_reading_commands_import_neither_dagster_nor_matplotlib(arguments, tmp_path):
    publish_snapshot(day_of("2026-11-01"), inventory=[{"id": "a"}], responses=[{"id": "a", "outcome": "ok"}])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    imported = done.stderr.splitlines()[-1].split()
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "pipelines" in imported or arguments[-1] == "--help"
    assert [name for name in HEAVY if name in imported] == []


def test_run_into_a_file_imports_no_driver_of_a_warehouse_server():
    script = "import sys, assets.runner, pipelines.preflight; print(*{'psycopg', 'dagster'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "dagster\n"), done.stderr


def test_process_with_lasting_imports_ends_without_a_word():
    script = """
from assets.importing import lasting_imports
with lasting_imports():
    from pipelines.engine.duckdb import DuckDBEngine
def read():
    with DuckDBEngine() as engine:
        print(engine.read("SELECT 1 AS one")["one"].to_pylist())
read()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1]\n", "")


def test_lasting_imports_end_with_collection_switched_on():
    with pytest.raises(ImportError), lasting_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
