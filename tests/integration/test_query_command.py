"""`image-snapshots query` for a user: formats, files, standard input, the prompt, one sentence for a mistake."""

import datetime as dt
import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from published_days import publish_snapshot
from typer.testing import CliRunner

from assets.query_command import QueryCommand, query
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Partition
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

ID = "00000000-0000-4000-8000-000000000001"
NAMES = "SELECT snapshot_date, name, size_bytes FROM images ORDER BY snapshot_date"
CSV = '"snapshot_date","name","size_bytes"\n2026-11-01,"base",1024\n2026-11-02,"base, new",\n'

# Only this command, to save the seconds for importing the others.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command(cls=QueryCommand)(query)

REFUSAL = (
    "The lake is read-only here, and this DROP statement does more than read: give a SELECT, WITH, SHOW, DESCRIBE, "
    "SUMMARIZE or EXPLAIN; --output writes the rows to a file."
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """One project; its second day is incomplete."""
    root = str(tmp_path_factory.mktemp("published") / "lake")
    for number, image, failed in (
        (1, {"name": "base", "size_bytes": 1024}, []),
        (2, {"name": "base, new"}, [{"id": "x", "outcome": "failed"}]),
    ):
        publish_snapshot(
            SnapshotRun(Partition(dt.date(2026, 11, number), "default"), "run", Settings(lake=root)),
            inventory=[{"id": ID}],
            responses=[{"id": ID, "outcome": "ok"}, *failed],
            images=[{"id": ID, **image}],
        )
    return root


@pytest.fixture
def ask(lake, monkeypatch):
    """Run the command in this process and return its output."""
    monkeypatch.setenv("IMAGE_SNAPSHOTS_LAKE", lake)

    def run(*arguments, given=None):
        result = CliRunner().invoke(app, arguments, input=given, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def refusal(ask, *arguments):
    with pytest.raises(ConfigurationError) as raised:
        ask(*arguments)
    return str(raised.value)


def test_rows_are_csv_when_piped(ask):
    assert ask(NAMES) == CSV


@pytest.mark.parametrize("comment", ["-- names\n", "--names\n", "--\n", "-- a=b\n"])
def test_query_that_begins_with_a_comment_is_not_an_option(ask, comment):
    assert ask(comment + NAMES) == CSV
    assert ask("--format", "csv", comment + NAMES) == CSV


def test_unknown_option_is_named(ask):
    assert CliRunner().invoke(app, ["--formt", "csv"]).exit_code == 2


def test_rows_are_a_table_if_requested(ask):
    text = ask("SELECT name FROM images ORDER BY snapshot_date", "--format", "table")
    assert [line for line in text.splitlines() if "base" in line] == ["│ base      │", "│ base, new │"]


def test_plan_is_shown_as_it_is_drawn(ask):
    lines = ask("EXPLAIN SELECT 1", "--format", "table").splitlines()
    assert lines[0].startswith("╭─ Projection")


def test_rows_are_json_if_requested(ask):
    assert json.loads(ask(NAMES, "--format", "json")) == [
        {"snapshot_date": "2026-11-01", "name": "base", "size_bytes": 1024},
        {"snapshot_date": "2026-11-02", "name": "base, new", "size_bytes": None},
    ]


def test_query_is_read_from_a_file(ask):
    Path("names.sql").write_text(f"-- Names and sizes.\n{NAMES};\n")
    assert ask("--file", "names.sql") == CSV


def test_query_is_read_from_standard_input(ask):
    assert ask(given=NAMES) == CSV


def test_incomplete_days_count_as_latest_if_requested(ask):
    sql = "SELECT name FROM images_latest"
    assert ask(sql) == '"name"\n"base"\n'
    assert ask(sql, "--include-incomplete") == '"name"\n"base, new"\n'


def test_output_file_has_the_format_of_suffix_or_option(ask):
    assert ask(NAMES, "--output", "out.csv") == ""
    assert Path("out.csv").read_text() == CSV
    ask(NAMES, "--output", "out.JSON")
    assert json.loads(Path("out.JSON").read_text())[0]["name"] == "base"
    ask(NAMES, "--output", "out.parquet")
    assert pq.ParquetFile("out.parquet").metadata.num_rows == 2
    ask(NAMES, "--output", "out.txt", "--format", "csv")
    assert Path("out.txt").read_text() == CSV


def test_failed_query_leaves_the_output_file_unchanged(ask):
    Path("out.csv").write_text("before")
    sql = "SELECT CAST(CASE WHEN i = 99999 THEN 'a' ELSE '1' END AS INTEGER) AS n FROM range(100000) AS r(i)"
    assert refusal(ask, sql, "--output", "out.csv") == (
        "The query failed: Conversion Error: Could not convert string 'a' to INT32"
    )
    assert Path("out.csv").read_text() == "before"
    assert os.listdir() == ["out.csv"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["SELECT 1", "--file", "x.sql"], "The query is given twice, as argument and with --file: leave one out."),
        (["--file", "x.sql"], "--file x.sql cannot be read: No such file or directory."),
        (
            ["SELECT 1", "--format", "parquet"],
            "--format parquet is not for the screen: name a file with --output.",
        ),
        (
            ["SELECT 1", "--output", "x.txt"],
            "--output x.txt does not show the format: end it in .csv, .json or .parquet, or give --format.",
        ),
        (["SELECT 1", "--output", "none/x.csv"], "--output none/x.csv cannot be written: No such file or directory."),
        (["DROP VIEW images"], REFUSAL),
    ],
)
def test_mistake_is_one_sentence(ask, arguments, sentence):
    assert refusal(ask, *arguments) == sentence


def test_output_into_the_lake_is_refused(ask, lake):
    path = f"{lake}/images/dt=2026-11-01/project=default/images.parquet"
    before = Path(path).read_bytes()
    assert refusal(ask, "SELECT 1", "--output", path) == (
        f"--output {path} is inside the lake, which is read-only: choose another place."
    )
    assert Path(path).read_bytes() == before


def test_empty_lake_and_wrong_query_end_with_status_2(image_snapshots, lake, tmp_path):
    result = image_snapshots("query", "SELECT 1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: Nothing is published in the lake {tmp_path}/lake: take a snapshot with `image-snapshots run`, or set "
        "IMAGE_SNAPSHOTS_LAKE to the lake to read.\n"
    )
    result = image_snapshots("query", "SELECT nome FROM images", env={"IMAGE_SNAPSHOTS_LAKE": lake})
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith('Error: The query failed: Binder Error: Referenced column "nome" not found')
    assert result.stderr.count("\n") == 1


def test_reader_that_stops_early_ends_the_command(command, lake):
    process = subprocess.Popen(
        [command, "query", "SELECT * FROM range(5000000)"],
        env={**os.environ, "IMAGE_SNAPSHOTS_LAKE": lake},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b'"range"\n'
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 0)
    process.stderr.close()


class Terminal:
    """The command at its own terminal."""

    def __init__(self, command, environment):
        self._terminal, inside = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, env=environment, start_new_session=True
        )
        os.close(inside)
        self.shown = ""

    def type(self, text):
        os.write(self._terminal, text.encode())

    def wait_for(self, text):
        """The output up to this text; the rest is for the next call."""
        while text not in self.shown:
            assert select.select([self._terminal], [], [], 60)[0], self.shown
            self.shown += os.read(self._terminal, 65536).decode(errors="replace")
        before, found, self.shown = self.shown.partition(text)
        return before + found

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def terminal(command, lake):
    environment = {**os.environ, "IMAGE_SNAPSHOTS_LAKE": lake, "TERM": "dumb", "COLUMNS": "120"}
    opened = Terminal([command, "query"], environment)
    yield opened
    opened.close()


def test_no_query_at_a_terminal_shows_a_prompt(terminal):
    shown = terminal.wait_for("sql> ")
    assert "images_latest         The images that the API described" in shown
    terminal.type("SELECT name\n")
    terminal.wait_for("...> ")
    terminal.type("FROM images_latest;\n")
    assert "│ base    │" in terminal.wait_for("sql> ")
    terminal.type("DROP VIEW images;\n")
    assert "Error: The lake is read-only here" in terminal.wait_for("sql> ")
    # Ctrl-C ends a long query, or clears the typed text, but not the prompt.
    terminal.type("SELECT MAX(a.range + b.range) FROM range(60000) a, range(200000) b;\n")
    time.sleep(0.5)
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("sql> ")
    terminal.type("SELECT 40 + 2 AS answer;\n")
    assert "│     42 │" in terminal.wait_for("sql> ")
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0
