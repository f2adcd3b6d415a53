"""What the rules find, what becomes of broken ones, and the life of a finding from day to day."""

import datetime as dt
import hashlib
import json
from dataclasses import replace

import pytest
from published_days import PROJECT_ID, day_of, publish_day, published_rows, rows_of, write_history

from pipelines.analysis import DayAnalysis
from pipelines.audit import SEVERITIES, Suppression, derive_audit_findings, read_rules, read_suppressions
from pipelines.columns import (
    AUDIT_FINDINGS,
    AUDIT_RULES,
    IMAGE_CHANGES,
    IMAGE_RECONCILIATION,
    IMAGE_USAGE,
)
from pipelines.errors import ConfigurationError
from pipelines.settings import ROOT, Settings

HEADER = "-- id: {id}\n-- title: Named badly\n-- severity: low\n-- why: It is.\n-- do: Rename it.\n"
NAMED_BADLY = "SELECT id, name FROM current_images WHERE name LIKE 'bad%'"


def write_rule(directory, id_, sql=NAMED_BADLY, header=HEADER):
    directory.mkdir(exist_ok=True)
    (directory / f"{id_}.sql").write_text(header.format(id=id_) + sql + "\n")


def write_derived(day, table, rows):
    data = rows_of(table, rows, snapshot_date=day.partition.date, project_id=PROJECT_ID)
    with day.lake.writer(day.lake.table(table.name, day.partition), table, day.run_id) as writer:
        writer.write(data)


def derive(day):
    with DayAnalysis(day) as analysis:
        return derive_audit_findings(analysis)


def findings_of(day, rule):
    return {row["id"]: row for row in published_rows(day, AUDIT_FINDINGS) if row["rule"] == rule}


# --- the rules that ship --------------------------------------------------------------------------------------------

SHIPPED = {
    "build_failed": "medium",
    "build_stuck": "medium",
    "large_and_unused": "medium",
    "namespace_not_allowed": "high",
    "not_registered": "medium",
    "older_than_a_year": "low",
    "owner_missing": "medium",
    "public_dedicated_image": "high",
    "public_without_description": "low",
    "registered_but_gone": "medium",
    "tag_pushed_again": "medium",
    "unknown_architecture": "low",
    "unknown_category": "low",
    "unused_30_days": "low",
    "unused_90_days": "medium",
    "visibility_widened": "high",
}

TODAY = dt.date(2026, 11, 23)


def days_ago(days):
    return dt.datetime(2026, 11, 23, 9, tzinfo=dt.UTC) - dt.timedelta(days=days)


def changed(id_, field, old, new):
    return {
        "id": id_,
        "change": "changed",
        "field": field,
        "old_value": old,
        "new_value": new,
        "change_class": "content",
        "compared_with": dt.date(2026, 11, 22),
    }


# Named after the rule that finds it, or after what keeps that rule from finding it.
IMAGES = [
    {"id": "public", "visibility": "public", "type": "Dedicated", "namespace": "ours", "description": "d"},
    {"id": "private", "visibility": "PRIVATE", "type": "DEDICATED"},
    {"id": "public-preset", "visibility": "PUBLIC", "type": "BUILD_IN", "description": "preset"},
    {"id": "public-blank", "visibility": "PUBLIC", "type": "BUILD_IN", "description": " "},
    {"id": "private-blank", "visibility": "PRIVATE", "description": ""},
    {"id": "widened", "visibility": "PUBLIC", "type": "BUILD_IN", "description": "d"},
    {"id": "narrowed", "visibility": "PRIVATE"},
    {"id": "recased", "visibility": "Public", "type": "BUILD_IN", "description": "d"},
    *({"id": id_, "swr_path": "swr.example/ours/a:1"} for id_ in ("resized", "updated", "renamed", "moved", "built")),
    {"id": "create-failed", "status": "Create_Failed", "status_message": "no space"},
    {"id": "error", "status": "ERROR"},
    {"id": "active", "status": "ACTIVE", "update_at": days_ago(9)},
    {"id": "stuck", "status": "creating", "create_at": days_ago(5), "update_at": days_ago(2)},
    {"id": "stuck-never-updated", "status": "INIT", "create_at": days_ago(2)},
    {"id": "building", "status": "CREATING", "create_at": days_ago(9), "update_at": days_ago(1)},
    {"id": "old", "create_at": days_ago(366)},
    {"id": "a-year", "create_at": days_ago(365)},
    {"id": "owned"},
    {"id": "no-owner"},
    {"id": "blank-cost-center"},
    {"id": "odd-arch", "arch": "riscv64"},
    {"id": "known-arch", "arch": "x86_64"},
    {"id": "odd-categories", "resource_categories": "CPU|FPGA|TPU", "support_res_categories": "TPU"},
    {"id": "known-categories", "resource_categories": "cpu"},
    {"id": "strange-namespace", "namespace": "theirs"},
    {"id": "used"},
    {"id": "unused-29"},
    {"id": "unused-30"},
    {"id": "unused-90"},
    {"id": "unobserved"},
    {"id": "giant", "type": "DEDICATED", "size_bytes": 100 * 2**30 + 1},
    {"id": "giant-unused-6", "type": "DEDICATED", "size_bytes": 200 * 2**30},
    {"id": "giant-preset", "type": "Build_In", "size_bytes": 200 * 2**30},
    {"id": "large", "type": "DEDICATED", "size_bytes": 100 * 2**30},
]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """One day with what each rule finds and what it must not."""
    lake = tmp_path_factory.mktemp("audited")
    settings = Settings(lake=str(lake), allowed_namespaces=["ours"])
    day = replace(day_of(str(TODAY)), settings=settings)
    owners = {"no-owner": {"cost_center": "cc"}, "blank-cost-center": {"owner": "o", "cost_center": " "}}
    ids = [*(image["id"] for image in IMAGES), "gone"]
    publish_day(
        day,
        listed=[],
        notebooks=[],
        inventory=[{"id": id_, **owners.get(id_, {"owner": "o", "cost_center": "cc"})} for id_ in ids],
        responses=[{"id": id_, "outcome": "not_found" if id_ == "gone" else "ok"} for id_ in ids],
        images=IMAGES,
        image_values=[
            {"id": "odd-categories", "field": "resource_categories", "position": 0, "value": "CPU"},
            {"id": "odd-categories", "field": "resource_categories", "position": 1, "value": "TPU"},
            {"id": "odd-categories", "field": "resource_categories", "position": 2, "value": "FPGA"},
            {"id": "odd-categories", "field": "support_res_categories", "position": 0, "value": "TPU"},
            {"id": "known-categories", "field": "resource_categories", "position": 0, "value": "cpu"},
            {"id": "known-categories", "field": "dev_services", "position": 0, "value": "TPU"},
        ],
    )
    write_derived(
        day,
        IMAGE_CHANGES,
        [
            changed("widened", "visibility", "PRIVATE", "PUBLIC"),
            changed("narrowed", "visibility", "PUBLIC", "PRIVATE"),
            changed("recased", "visibility", "PUBLIC", "Public"),
            changed("resized", "size", "10", "11"),
            changed("resized", "description", "a", "b"),
            changed("updated", "update_at", "2026-11-20T00:00:00.000000Z", "2026-11-22T00:00:00.000000Z"),
            changed("renamed", "update_at", "2026-11-20T00:00:00.000000Z", "2026-11-22T00:00:00.000000Z"),
            changed("renamed", "name", "a", "b"),
            changed("moved", "swr_path", "swr.example/ours/a:0", "swr.example/ours/a:1"),
            changed("moved", "size", "10", "11"),
            changed("built", "status", "CREATING", "ACTIVE"),
            changed("built", "size", "0", "11"),
        ],
    )
    write_derived(
        day,
        IMAGE_USAGE,
        [
            {"id": "used", "is_observed": True, "observed_days": 95, "unused_days": 0},
            {"id": "unused-29", "is_observed": True, "observed_days": 29, "unused_days": 29},
            {"id": "unused-30", "is_observed": True, "observed_days": 30, "unused_days": 30},
            {"id": "unused-90", "is_observed": True, "observed_days": 95, "unused_days": 90},
            {"id": "unobserved", "is_observed": False, "observed_days": 95, "unused_days": 95},
            {"id": "giant", "is_observed": True, "observed_days": 7, "unused_days": 7},
            {"id": "giant-unused-6", "is_observed": True, "observed_days": 7, "unused_days": 6},
            {"id": "giant-preset", "is_observed": True, "observed_days": 7, "unused_days": 7},
            {"id": "large", "is_observed": True, "observed_days": 7, "unused_days": 7},
        ],
    )
    write_derived(
        day,
        IMAGE_RECONCILIATION,
        [
            {"id": "gone", "kind": "registered_but_gone", "outcome": "not_found", "name": "was-here"},
            {"id": "stray", "kind": "not_registered", "name": "who", "likely_owner": "o", "size_bytes": 1024},
        ],
    )
    return day, derive(day)


@pytest.mark.parametrize(
    ("rule", "ids"),
    [
        ("build_failed", {"create-failed", "error"}),
        ("build_stuck", {"stuck", "stuck-never-updated"}),
        ("large_and_unused", {"giant"}),
        ("namespace_not_allowed", {"strange-namespace"}),
        ("not_registered", {"stray"}),
        ("older_than_a_year", {"old"}),
        ("owner_missing", {"no-owner", "blank-cost-center"}),
        ("public_dedicated_image", {"public"}),
        ("public_without_description", {"public-blank"}),
        ("registered_but_gone", {"gone"}),
        ("tag_pushed_again", {"resized", "updated"}),
        ("unknown_architecture", {"odd-arch"}),
        ("unknown_category", {"odd-categories"}),
        ("unused_30_days", {"unused-30", "unused-90"}),
        ("unused_90_days", {"unused-90"}),
        ("visibility_widened", {"widened"}),
    ],
)
def test_a_rule_that_ships_finds_what_it_is_for_and_no_near_miss(audited, rule, ids):
    found = findings_of(audited[0], rule)
    assert found.keys() == ids
    assert {finding["severity"] for finding in found.values()} == {SHIPPED[rule]}


def test_every_rule_that_ships_is_applied_and_counted(audited):
    day, result = audited
    rows = {row["rule"]: row for row in published_rows(day, AUDIT_RULES)}
    assert {name: row["severity"] for name, row in rows.items()} == SHIPPED
    assert {name: row["error"] for name, row in rows.items()} == dict.fromkeys(SHIPPED)
    assert rows["owner_missing"] == {
        "rule": "owner_missing",
        "title": "No owner or no cost centre",
        "severity": "medium",
        "why": "Without an owner nobody answers for the image, and without a cost centre nobody pays for it.",
        "what_to_do": "State both in the inventory.",
        "findings": 2,
        "error": None,
        "sql_sha256": hashlib.sha256((ROOT / "sql/audit/owner_missing.sql").read_bytes()).hexdigest(),
    }
    assert rows["visibility_widened"]["why"] == (
        "Since the last complete day somebody opened the image to everyone who knows its id. This is found on the day "
        "of the change alone."
    )
    assert result.open_by_severity == {"critical": 0, "high": 3, "medium": 12, "low": 6, "info": 0}
    assert (result.new, result.resolved, result.suppressed, result.rule_errors) == (21, 0, 0, {})
    assert [(file.path.partition("/")[0], file.rows) for file in result.files] == [
        ("audit_rules", 16),
        ("audit_findings", 21),
    ]


def test_evidence_is_what_the_rule_shows_in_its_order(audited):
    day, _ = audited

    def evidence(rule, id_):
        return findings_of(day, rule)[id_]["evidence"]

    assert evidence("public_dedicated_image", "public") == (
        '{"visibility":"public","type":"Dedicated","namespace":"ours","swr_path":null}'
    )
    assert evidence("older_than_a_year", "old") == (
        '{"create_at":"2025-11-22T09:00:00.000000Z","update_at":null,"age_days":366}'
    )
    assert evidence("visibility_widened", "widened") == (
        '{"visibility_before":"PRIVATE","visibility_now":"PUBLIC","compared_with":"2026-11-22"}'
    )
    assert json.loads(evidence("tag_pushed_again", "updated")) == {
        "swr_path": "swr.example/ours/a:1",
        "size_before": None,
        "size_now": None,
        "update_at_before": "2026-11-20T00:00:00.000000Z",
        "update_at_now": "2026-11-22T00:00:00.000000Z",
        "compared_with": "2026-11-22",
    }
    assert json.loads(evidence("unknown_category", "odd-categories")) == {
        "unknown_value": "FPGA",
        "unknown_values": 2,
        "resource_categories": "CPU|FPGA|TPU",
        "support_res_categories": "TPU",
    }


def test_a_finding_says_who_answers_for_the_image(audited):
    day, _ = audited
    finding = findings_of(day, "registered_but_gone")["gone"]
    assert (finding["name"], finding["owner"], finding["cost_center"]) == ("was-here", "o", "cc")
    assert findings_of(day, "not_registered")["stray"]["name"] == "who"
    assert finding["finding_id"] == hashlib.sha256(b"p1/registered_but_gone/gone").hexdigest()[:32]


def test_without_an_allow_list_every_namespace_is_allowed():
    day = day_of("2026-11-23")
    publish_day(day, responses=[{"id": "a", "outcome": "ok"}], images=[{"id": "a", "namespace": "theirs"}])
    assert derive(day).open_by_severity == dict.fromkeys(SEVERITIES, 0)


# --- rules that cannot be applied -----------------------------------------------------------------------------------

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


def test_a_broken_rule_is_named_and_stops_no_other(tmp_path):
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
        "The header needs rain, which is not one of list, usage.",
    )
    (rules / "latin.sql").write_bytes(b"-- id: latin\n-- title: caf\xe9\n")
    expected["latin"] = "The file is not UTF-8 text."
    (rules / "gone.sql").symlink_to(rules / "nowhere")
    expected["gone"] = "The file cannot be read: No such file or directory."
    write_rule(rules, "build_failed")
    expected["rules/build_failed.sql"] = (
        "The id build_failed is taken by another rule: give this one an id and a file name of its own."
    )
    write_rule(rules, "works", NAMED_BADLY + ";  -- with a semicolon")

    day = day_of("2026-11-23")
    day = replace(day, settings=Settings(lake="lake", audit_rules=rules))
    publish_day(
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


def test_a_rule_reads_no_file_but_those_of_its_relations(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("id,password\na,hunter2\n")
    day = day_of("2026-11-23")
    publish_day(day, responses=[{"id": "a", "outcome": "ok"}], images=[{"id": "a"}])
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


def test_evidence_of_any_type_is_json(tmp_path):
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
    publish_day(day, responses=[{"id": "a", "outcome": "ok"}], images=[{"id": "a"}])
    assert derive(day).rule_errors == {}
    assert findings_of(day, "typed")["a"]["evidence"] == (
        '{"instant":"2026-01-02T02:04:05.500000Z","local_time":"2026-01-02T03:04:05.000000","day":"2026-01-02",'
        '"not_a_number":"nan","number":1.5,"nothing":null,"flag":true,"the \'text\'":"é\\""}'
    )


def test_a_directory_of_rules_must_be_there(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        read_rules(tmp_path / "none")
    assert str(caught.value) == (
        f"There is no directory {tmp_path}/none: set IMAGE_SNAPSHOTS_AUDIT_RULES to the directory of your rules."
    )


# --- the life of a finding ------------------------------------------------------------------------------------------


class Life:
    """Days of a project whose own rule finds images with a bad name."""

    def __init__(self, directory):
        self.rules = directory / "rules"
        self.suppressions = None
        write_rule(self.rules, "named")

    def take(self, number, names=None, *, history=(), outcomes=None, **derived):
        """Publish and audit the day 2026-11-<number>; `names` of the images that are described, by id."""
        names = names or {}
        outcomes = dict.fromkeys(names, "ok") | (outcomes or {})
        day = self.day(number)
        publish_day(
            day,
            inventory=[{"id": id_, "owner": "o", "cost_center": "cc"} for id_ in outcomes],
            responses=[{"id": id_, "outcome": outcome} for id_, outcome in outcomes.items()],
            images=[{"id": id_, "name": name, "namespace": "ns"} for id_, name in names.items()],
            **derived,
        )
        if history:
            write_history(day, history)
        return derive(day)

    def day(self, number):
        settings = Settings(lake="lake", audit_rules=self.rules, suppressions=self.suppressions)
        return replace(day_of(f"2026-11-{number}"), settings=settings)

    def seen(self, number):
        """State, first day and days open of each finding of the rule, by image."""
        found = findings_of(self.day(number), "named")
        return {id_: (row["state"], row["first_seen"].day, row["days_open"]) for id_, row in found.items()}


@pytest.fixture
def life(tmp_path):
    return Life(tmp_path)


def test_a_finding_is_new_then_open_then_resolved_then_gone_and_new_again(life):
    assert life.take(10, {"a": "bad", "b": "bad"}).new == 2
    assert life.seen(10) == {"a": ("new", 10, 0), "b": ("new", 10, 0)}
    assert life.take(11, {"a": "bad-still", "b": "good"}).resolved == 1
    assert life.seen(11) == {"a": ("open", 10, 1), "b": ("resolved", 10, 1)}
    found = findings_of(life.day(11), "named")
    assert derive(life.day(11)).resolved == 1
    assert findings_of(life.day(11), "named") == found
    assert (found["a"]["evidence"], found["a"]["name"]) == ('{"name":"bad-still"}', "bad-still")
    assert (found["b"]["evidence"], found["b"]["name"]) == ('{"name":"bad"}', "good")
    result = life.take(14, {"a": "bad", "b": "bad"})
    assert life.seen(14) == {"a": ("open", 10, 4), "b": ("new", 14, 0)}
    assert (result.new, result.resolved, result.open_by_severity["low"]) == (1, 0, 2)
    ids = [findings_of(life.day(number), "named")["b"]["finding_id"] for number in (10, 11, 14)]
    assert ids == [hashlib.sha256(b"p1/named/b").hexdigest()[:32]] * 3
    life.take(15, {"a": "good", "b": "bad"})
    life.take(16, {"a": "good", "b": "bad"})
    assert life.seen(16) == {"b": ("open", 14, 2)}


def test_nothing_is_resolved_on_a_day_that_is_not_complete(life):
    life.take(10, {"a": "bad", "b": "bad"})
    life.take(11, {"a": "good", "c": "bad"}, outcomes={"b": "failed"})
    assert life.seen(11) == {"a": ("open", 10, 1), "b": ("open", 10, 1), "c": ("new", 11, 0)}
    assert findings_of(life.day(11), "named")["a"]["evidence"] == '{"name":"bad"}'
    # A finding of an incomplete day is one, and its time goes on.
    life.take(12, {"a": "good", "b": "bad", "c": "bad"})
    assert life.seen(12) == {"a": ("resolved", 10, 2), "b": ("open", 10, 2), "c": ("open", 11, 1)}


def test_nothing_is_resolved_because_a_rule_broke_but_when_it_is_removed(life):
    life.take(10, {"a": "bad"})
    write_rule(life.rules, "named", "SELECT id, nope FROM current_images")
    result = life.take(11, {"a": "good"})
    assert result.rule_errors.keys() == {"named"}
    assert life.seen(11) == {"a": ("open", 10, 1)}
    assert findings_of(life.day(11), "named")["a"]["title"] == "Named badly"
    (life.rules / "named.sql").write_text("SELECT 1")
    life.take(12, {"a": "good"})
    assert life.seen(12) == {"a": ("open", 10, 2)}
    (life.rules / "named.sql").unlink()
    life.take(13, {"a": "bad"})
    assert life.seen(13) == {"a": ("resolved", 10, 3)}


def test_an_image_that_gave_no_answer_stays_as_it_was(life):
    write_rule(life.rules, "named", "SELECT id, name FROM images WHERE name LIKE 'bad%'")
    life.take(10, {"a": "bad", "b": "bad"})
    history = [
        {"id": "a", "valid_from": dt.date(2026, 11, 10), "name": "bad"},
        {"id": "b", "valid_from": dt.date(2026, 11, 10), "valid_to": dt.date(2026, 11, 11), "name": "bad"},
    ]
    life.take(11, history=history, outcomes={"a": "forbidden", "b": "not_found"})
    assert life.seen(11) == {"a": ("open", 10, 1), "b": ("resolved", 10, 1)}
    found = findings_of(life.day(11), "named")
    assert (found["a"]["name"], found["a"]["evidence"]) == ("bad", '{"name":"bad"}')
    life.take(12, {"a": "good"})
    assert life.seen(12) == {"a": ("resolved", 10, 2)}


def test_a_rule_resolves_nothing_while_what_it_needs_is_not_read(life):
    for need in ("list", "usage"):
        write_rule(life.rules, f"needs_{need}", header=HEADER + f"-- needs: {need}\n")
    write_rule(life.rules, "needs_both", header=HEADER + "-- needs: list, usage\n")

    def states(number):
        rows = published_rows(life.day(number), AUDIT_FINDINGS)
        return {(row["rule"], row["id"]): row["state"] for row in rows}

    life.take(10, {"a": "bad"}, listed=[], notebooks=[])
    assert life.take(11, {"a": "good", "b": "bad"}, notebooks=[]).rule_errors == {}
    assert states(11) == {
        ("named", "a"): "resolved",
        ("named", "b"): "new",
        ("needs_list", "a"): "open",
        ("needs_list", "b"): "new",
        ("needs_usage", "a"): "resolved",
        ("needs_usage", "b"): "new",
        ("needs_both", "a"): "open",
        ("needs_both", "b"): "new",
    }
    life.take(12, {"a": "good", "b": "good"}, listed=[])
    assert states(12) == {
        ("named", "b"): "resolved",
        ("needs_list", "a"): "resolved",
        ("needs_list", "b"): "resolved",
        ("needs_usage", "b"): "open",
        ("needs_both", "a"): "open",
        ("needs_both", "b"): "open",
    }


# --- suppressions ---------------------------------------------------------------------------------------------------


def test_a_suppressed_finding_stays_marked_until_the_suppression_ends(life, tmp_path):
    life.suppressions = tmp_path / "suppressions.toml"
    life.suppressions.write_text("""
        [[suppression]]
        rule = "named"
        id = "A"
        reason = "agreed"
        until = 2026-11-11

        [[suppression]]
        rule = "named"
        id = "a"
        reason = "of before"
        until = 2026-11-10

        [[suppression]]
        rule = "build_failed"
        namespace = "ns"
        reason = "of another rule"
        until = 2099-12-31

        [[suppression]]
        rule = "named"
        namespace = "elsewhere"
        reason = "of another namespace"
        until = 2099-12-31
    """)
    result = life.take(10, {"a": "bad", "b": "bad"})
    assert (result.new, result.suppressed, result.open_by_severity["low"]) == (1, 1, 1)
    result = life.take(11, {"a": "bad", "b": "bad"})
    assert (result.new, result.suppressed, result.open_by_severity["low"]) == (0, 1, 1)
    found = findings_of(life.day(11), "named")
    assert (found["a"]["state"], found["a"]["suppressed_until"]) == ("open", dt.date(2026, 11, 11))
    assert found["a"]["suppression_reason"] == "agreed"
    assert (found["b"]["suppressed_until"], found["b"]["suppression_reason"]) == (None, None)
    rules = {row["rule"]: row["findings"] for row in published_rows(life.day(11), AUDIT_RULES)}
    assert rules["named"] == 2
    result = life.take(12, {"a": "bad", "b": "bad"})
    assert (result.new, result.suppressed, result.open_by_severity["low"]) == (0, 0, 2)
    assert life.seen(12) == {"a": ("open", 10, 2), "b": ("open", 10, 2)}
    life.suppressions.write_text(
        '[[suppression]]\nrule = "named"\nnamespace = "ns"\nreason = "sandboxes"\nuntil = 2026-12-31\n'
    )
    assert derive(life.day(12)).suppressed == 2


GOOD_ENTRY = '[[suppression]]\nrule = "r"\nid = "a"\nreason = "agreed"\nuntil = 2026-12-31\n'


def test_suppressions_are_read(tmp_path):
    path = tmp_path / "suppressions.toml"
    path.write_text("")
    assert read_suppressions(path) == []
    path.write_text(GOOD_ENTRY)
    assert read_suppressions(path) == [Suppression(rule="r", id="a", reason="agreed", until=dt.date(2026, 12, 31))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD_ENTRY.replace('rule = "r"\n', ""), "Correct entry 2 of {path}: rule: Field required."),
        (
            GOOD_ENTRY.replace('"agreed"', '" "'),
            "Correct entry 2 of {path}: reason: String should have at least 1 char",
        ),
        (
            GOOD_ENTRY.replace("2026-12-31", '"2026-12-31"'),
            "Correct entry 2 of {path}: until: Input should be a valid date",
        ),
        (GOOD_ENTRY.replace('id = "a"\n', ""), "Correct entry 2 of {path}: state either id or namespace."),
        (GOOD_ENTRY + 'namespace = "n"\n', "Correct entry 2 of {path}: state either id or namespace."),
        (GOOD_ENTRY + 'untli = "n"\n', "Correct entry 2 of {path}: untli: Extra inputs are not permitted."),
        ('[other]\nrule = "r"\n', "Correct {path}: other: Extra inputs are not permitted."),
        ("[[suppression]\n", "{Path} is not TOML: "),
    ],
)
def test_a_wrong_suppression_is_named_by_its_number(tmp_path, text, sentence):
    path = tmp_path / "suppressions.toml"
    path.write_text(GOOD_ENTRY + text)
    names = {"path": f"the suppressions file {path}", "Path": f"The suppressions file {path}"}
    with pytest.raises(ConfigurationError) as caught:
        read_suppressions(path)
    assert str(caught.value).startswith(sentence.format(**names))
    assert str(caught.value).count("\n") == 0


def test_suppressions_that_are_no_list_or_cannot_be_read(tmp_path):
    path = tmp_path / "suppressions.toml"
    path.write_text('[suppression]\nrule = "r"\n')
    with pytest.raises(ConfigurationError) as caught:
        read_suppressions(path)
    assert str(caught.value) == (f"Correct the suppressions file {path}: suppression: Input should be a valid list.")
    with pytest.raises(ConfigurationError) as caught:
        read_suppressions(tmp_path / "none.toml")
    assert str(caught.value) == (
        f"The suppressions file {tmp_path}/none.toml cannot be read (No such file or directory): correct "
        "IMAGE_SNAPSHOTS_SUPPRESSIONS."
    )


# --- settings -------------------------------------------------------------------------------------------------------


def test_the_settings_of_the_audit(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ALLOWED_NAMESPACES", '["ours", "base"]')
    monkeypatch.setenv("IMAGE_SNAPSHOTS_AUDIT_RULES", "rules")
    settings = Settings.load()
    assert settings.allowed_namespaces == {"ours", "base"}
    assert str(settings.audit_rules) == "rules"
    for value in ("[]", "ours"):
        monkeypatch.setenv("IMAGE_SNAPSHOTS_ALLOWED_NAMESPACES", value)
        with pytest.raises(ConfigurationError, match="The setting IMAGE_SNAPSHOTS_ALLOWED_NAMESPACES is wrong: "):
            Settings.load()
