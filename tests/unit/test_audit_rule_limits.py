"""Audit rules that loop, wait, grow, or change their process: each is an error, and the others are run."""

import tempfile
from dataclasses import replace

import duckdb
import pytest
from audited_days import SHIPPED, SPINS, derive, findings_of, write_rule
from published_days import day_of, publish_snapshot, published_rows

from pipelines.derive import rule_process, rule_worker
from pipelines.engine.sql_text import RUNNING_TEXT
from pipelines.settings import Settings
from pipelines.tables import AUDIT_RULES


@pytest.fixture
def derived(tmp_path):
    """The errors of these rules and of the shipped ones; `works`, which comes last, must find its images."""

    def derive_with(**rules):
        for name, sql in rules.items():
            write_rule(tmp_path / "rules", name, sql)
        write_rule(tmp_path / "rules", "works")
        settings = Settings(lake="lake", audit_rules=tmp_path / "rules", audit_rule_seconds=1)
        day = replace(day_of("2026-11-23"), settings=settings)
        publish_snapshot(day, responses=[{"id": "a", "outcome": "ok"}], images=[{"id": "a", "name": "bad"}])
        errors = derive(day).rule_errors
        rows = {row["rule"]: row["error"] for row in published_rows(day, AUDIT_RULES)}
        assert {name: error for name, error in rows.items() if error} == errors
        assert rows.keys() == {*SHIPPED, *rules, "works"}
        assert findings_of(day, "works")["a"]["evidence"] == '{"name":"bad"}'
        return errors

    return derive_with


def test_temporary_directory_may_be_named_like_a_pattern(derived, tmp_path, monkeypatch):
    place = tmp_path / "tmp[1]*"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    assert derived(repeats="SELECT id, name FROM current_images UNION ALL SELECT id, name FROM current_images") == {
        "repeats": "The SELECT returns an image more than once, such as a: return one row for each."
    }


GROWS = "SELECT 'a' AS id, STRING_AGG(REPEAT('x', 1000000) || range, ',') AS n FROM range(20000)"


def test_rule_cannot_replace_what_another_found(derived):
    """A SELECT may run a statement that it holds as a text, and rules may write where their findings are kept."""
    forged = "SELECT 'before' AS rule, 'z' AS id, '{}' AS evidence"
    copy = f"WITH x AS (COPY ({forged}) TO 'PLACE/before.parquet' (FORMAT parquet)) SELECT 1 AS one"
    ((text,),) = duckdb.connect().execute("SELECT json_serialize_sql(?)", [copy]).fetchall()
    place = "replace(current_setting('temp_directory'), 'spilled', 'found')"
    literal = text.replace("'", "''")
    run = f"json_execute_serialized_sql(replace('{literal}', 'PLACE', {place}))"
    errors = derived(
        before="SELECT id, name FROM current_images", forger=f"SELECT id, 1 AS n FROM current_images, {run}"
    )
    assert errors == {"forger": "The file must hold one SELECT statement and nothing else."}
    assert set(findings_of(day_of("2026-11-23"), "before")) == {"a"}


def test_spinning_rule_is_stopped_by_its_processor_time(derived):
    assert derived(spins=SPINS) == {
        "spins": "The rule took more than 1 seconds of processor time and was stopped: let it do less, or raise "
        "IMAGE_SNAPSHOTS_AUDIT_RULE_SECONDS."
    }


def test_waiting_rule_is_stopped_by_the_clock(derived, monkeypatch):
    # The clock stops the request after the others: the rule named waits_for_ever, last but one.
    asked = []

    def wait(answers, seconds):
        asked.append(seconds)
        return len(asked) != len(SHIPPED) + 2

    monkeypatch.setattr(rule_process, "answers_within", wait)
    assert derived(waits="SELECT id, SLEEP_MS(100000000) AS n FROM current_images") == {
        "waits": "The rule had no result after 10 seconds and was stopped: let it do less, or raise "
        "IMAGE_SNAPSHOTS_AUDIT_RULE_SECONDS."
    }
    assert set(asked) == {10}


def test_growing_rule_is_stopped_by_its_memory(derived):
    errors = derived(grows=GROWS, grows_at_once="SELECT 'a' AS id, REPEAT('x', 4000000000) AS n")
    assert errors.keys() == {"grows", "grows_at_once"}
    for error in errors.values():
        assert "emory" in error or "ended (signal" in error


def test_rule_that_changes_the_engine_is_refused_and_affects_no_other(derived):
    errors = derived(
        logs="SELECT 'a' AS id, 1 AS n FROM enable_logging(level = 'trace')",
        profiles="SELECT 'a' AS id, 1 AS n FROM enable_profiling(save_location = 'x')",
        crashes="SELECT 'a' AS id, 1 AS n FROM arrow_scan(1, 2, 3)",
    )
    assert "configuration has been locked" in errors["logs"]
    assert "configuration has been locked" in errors["profiles"]
    assert errors["crashes"]


def test_too_much_evidence_is_an_error(derived):
    assert derived(talks="SELECT id, REPEAT('x', 70000) AS n FROM current_images") == {
        "talks": "The SELECT returns more evidence than is kept (64 KB for an image, 256 MB in all): return what shows "
        "why the image is found."
    }


def test_rule_process_has_no_environment_and_no_open_files(tmp_path, monkeypatch):
    monkeypatch.setenv("OS_PASSWORD", "hunter2")
    with (
        rule_process.rule_scratch() as scratch,
        rule_process.RuleProcess(scratch, {}, {}, seconds=60) as process,
    ):
        process.apply("first", "SELECT 'a' AS id, 1 AS n")
        pid = process.pid
        with open(f"/proc/{pid}/environ", "rb") as file:
            assert b"hunter2" not in file.read()
    assert not scratch.exists()


def test_rules_and_queries_refuse_the_same_functions():
    assert set(rule_worker._RUNNING_TEXT) == RUNNING_TEXT
