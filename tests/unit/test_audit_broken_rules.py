"""Audit rules that cannot be run, or try to read other files; evidence of any type."""

from dataclasses import replace

import pytest
from audited_days import HEADER, NAMED_BADLY, SHIPPED, derive, findings_of, write_rule
from published_days import day_of, publish_snapshot, published_rows

from pipelines.derive.audit import read_rules
from pipelines.errors import ConfigurationError
from pipelines.settings import Settings
from pipelines.tables import (
    AUDIT_RULES,
)

BROKEN_SQL = {
    "no_sql": ("", "The file must hold one SELECT statement and nothing else."),
    "no_parse": ("SELEC 1", 'The SQL fails: Parser Error: syntax error at or near "SELEC".'),
    "no_column": (
        "SELECT id, nope FROM current_images",
        'The SQL fails: Binder Error: Referenced column "nope" not found in FROM clause.',
    ),
    "no_run": (
        "SELECT id, CAST(name AS INTEGER) AS n FROM current_images",
        (
            "The SQL fails: Conversion Error: Could not convert string 'bad' to INT32 when casting from source column "
            "name."
        ),
    ),
    "no_id": ("SELECT name, id FROM current_images", "The first column must be called id, not name."),
    "only_id": (
        "SELECT id FROM current_images",
        "The SELECT returns id alone: add at least one column that shows why the image is found.",
    ),
    "id_twice": (
        "SELECT id, 1 AS n FROM current_images UNION ALL SELECT UPPER(id), 2 FROM current_images",
        "The SELECT returns an image more than once, such as a: return one row for each.",
    ),
    "id_null": ("SELECT NULL AS id, name FROM current_images", "The SELECT returns a row whose id is null."),
    "two_statements": (
        "SELECT id, name FROM current_images; SELECT 1",
        "The file must hold one SELECT statement and nothing else.",
    ),
    "drops": ("DROP VIEW current_images", "The file must hold one SELECT statement and nothing else."),
    "exports": (
        "COPY (SELECT 1) TO 'stolen.csv'",
        "The file must hold one SELECT statement and nothing else.",
    ),
    "unlocks": ("SET enable_external_access = true", "The file must hold one SELECT statement and nothing else."),
    "writes": (
        "WITH w AS (INSERT INTO parameters SELECT * FROM parameters RETURNING *) SELECT 'a' AS id, project FROM w",
        (
            "The SQL fails: Binder Error: DML statements (INSERT/UPDATE/DELETE) are not allowed as CTE bodies inside a "
            "VIEW."
        ),
    ),
}


def test_broken_rule_is_reported_and_stops_no_other(tmp_path):
    rules = tmp_path / "rules"
    for name, (sql, _) in BROKEN_SQL.items():
        write_rule(rules, name, sql)
    expected = {name: sentence for name, (_, sentence) in BROKEN_SQL.items()}

    def header(name, text, sentence):
        (rules / f"{name}.sql").write_text(text + NAMED_BADLY)
        expected[name] = sentence

    lines = HEADER.splitlines(keepends=True)
    header(
        "no_header",
        "",
        "The header lacks id, title, severity, why, do: begin the file with lines such as `-- title: ...`.",
    )
    header(
        "no_why",
        "".join([*lines[:3], "-- why:\n", *lines[4:]]).format(id="no_why"),
        "The header lacks why: begin the file with lines such as `-- title: ...`.",
    )
    header("stated_twice", HEADER.format(id="stated_twice") + "-- title: More\n", "The header states title twice.")
    header("misnamed", HEADER.format(id="other"), "The header's id is other: name the file other.sql.")
    header(
        "Loud",
        HEADER.format(id="Loud"),
        "The id must be lower-case letters, digits and _ only, and begin with a letter.",
    )
    header(
        "grave",
        HEADER.format(id="grave").replace("low", "grave"),
        "The severity grave is not one of critical, high, medium, low, info.",
    )
    header(
        "needy",
        HEADER.format(id="needy") + "-- needs: usage, rain\n",
        "The header needs rain, which is not one of list, usage, registry.",
    )
    (rules / "latin.sql").write_bytes(b"-- id: latin\n-- title: caf\xe9\n")
    expected["latin"] = "The file is not UTF-8 text: save it as UTF-8."
    (rules / "gone.sql").symlink_to(rules / "nowhere")
    expected["gone"] = "The file cannot be read: No such file or directory."
    write_rule(rules, "build_failed")
    expected["rules/build_failed.sql"] = (
        "The id build_failed is taken by another rule: give this one an id and a file name of its own."
    )
    write_rule(rules, "works", NAMED_BADLY + ";  -- with a semicolon")

    day = day_of("2026-11-23")
    day = replace(day, settings=Settings(lake="lake", audit_rules=rules))
    publish_snapshot(
        day,
        responses=[{"id": "a", "outcome": "ok"}],
        images=[{"id": "a", "name": "bad", "status": "ERROR"}],
    )
    assert derive(day).rule_errors == expected
    rows = {row["rule"]: row for row in published_rows(day, AUDIT_RULES)}
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == expected
    assert rows.keys() == {*SHIPPED, *expected, "works"}
    assert {rows[name]["findings"] for name in expected} == {None}
    assert (rows["works"]["findings"], rows["build_failed"]["findings"]) == (1, 1)
    assert (rows["grave"]["severity"], rows["grave"]["title"]) == (None, "Named badly")
    assert rows["gone"]["sql_sha256"] is None
    assert findings_of(day, "works")["a"]["evidence"] == '{"name":"bad"}'
    assert not (tmp_path / "stolen.csv").exists()


def test_rule_cannot_read_files_outside_its_relations(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("id,password\na,hunter2\n")
    day = day_of("2026-11-23")
    publish_snapshot(day, responses=[{"id": "a", "outcome": "ok"}], images=[{"id": "a"}])
    elsewhere = day.lake.table("list_pages", day.partition)
    rules = tmp_path / "rules"
    write_rule(rules, "reads_text", f"SELECT filename AS id, content FROM READ_TEXT('{secret}')")
    write_rule(rules, "reads_csv", f"SELECT id, password FROM '{secret}'")
    write_rule(rules, "lists", f"SELECT file AS id, 1 AS n FROM GLOB('{tmp_path}/*')")
    write_rule(rules, "reads_the_lake", f"SELECT body_sha256 AS id, page FROM READ_PARQUET('{elsewhere}')")
    write_rule(rules, "calls_out", "SELECT id, 1 AS n FROM 'http://127.0.0.1:9/a.parquet'")
    write_rule(rules, "reads_python", "SELECT id, 1 AS n FROM self")
    errors = derive(replace(day, settings=Settings(lake="lake", audit_rules=rules))).rule_errors
    denied = "The SQL fails: Permission Error: Cannot access file"
    because = "file system operations are disabled by configuration."
    assert errors == {
        "reads_text": f'{denied} "{secret}" - {because}',
        "reads_csv": f'{denied} "{secret}" - {because}',
        "lists": f'{denied} "{tmp_path}/*" - {because}',
        "reads_the_lake": f'{denied} "{elsewhere}" - {because}',
        "calls_out": f'{denied} "http://127.0.0.1:9/a.parquet" - {because}',
        "reads_python": "The SQL fails: Catalog Error: Table with name self does not exist.",
    }


def test_evidence_of_any_type_becomes_json(tmp_path):
    write_rule(
        tmp_path / "rules",
        "typed",
        """SELECT
            UPPER(id) AS ID,
            TIMESTAMPTZ '2026-01-02 03:04:05.5+01' AS instant,
            TIMESTAMP '2026-01-02 03:04:05' AS local_time,
            DATE '2026-01-02' AS day,
            CAST('nan' AS DOUBLE) AS not_a_number,
            1.5 AS number,
            CAST(NULL AS DOUBLE) AS nothing,
            TRUE AS flag,
            'é"' AS "the 'text'"
        FROM current_images""",
    )
    day = replace(day_of("2026-11-23"), settings=Settings(lake="lake", audit_rules=tmp_path / "rules"))
    publish_snapshot(day, responses=[{"id": "a", "outcome": "ok"}], images=[{"id": "a"}])
    assert derive(day).rule_errors == {}
    assert findings_of(day, "typed")["a"]["evidence"] == (
        '{"instant":"2026-01-02T02:04:05.500000Z","local_time":"2026-01-02T03:04:05.000000","day":"2026-01-02",'
        '"not_a_number":"nan","number":1.5,"nothing":null,"flag":true,"the \'text\'":"é\\""}'
    )


def test_missing_rules_directory_is_refused(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        read_rules(tmp_path / "none")
    assert str(caught.value) == (
        f"There is no directory {tmp_path}/none: set IMAGE_SNAPSHOTS_AUDIT_RULES to the directory of your rules."
    )
