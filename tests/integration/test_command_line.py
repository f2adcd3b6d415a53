"""The command line for a user: its output, files and exit statuses, and one sentence for each mistake."""

import datetime as dt
import json
import subprocess
from pathlib import Path

import duckdb
import httpx
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipelines.sandbox import Faults
from pipelines.tables import ANALYSIS_TABLES, IMAGES, TABLES

TODAY = dt.datetime.now(dt.UTC).date()


def sentence_of(result):
    """The printed error: one line, no traceback."""
    assert "Traceback" not in result.stderr + result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0].removeprefix("Error: ")


def files_below(root):
    """Table files and manifests, with their contents."""
    return {
        p: p.read_bytes()
        for p in Path(root).rglob("*")
        if p.suffix in (".parquet", ".json") and "_staging" not in str(p)
    }


def test_first_run_publishes_a_day_that_all_readers_read_alike(image_snapshots, tmp_path):
    result = image_snapshots("run", "--json", keeps_runs=True)
    assert result.returncode == 0, result.stderr
    assert "embedded sandbox is used instead" in result.stderr
    (report,) = json.loads(result.stdout)
    assert report["state"] == "complete"
    assert set(report["tables"]) == {*TABLES, *ANALYSIS_TABLES} - {"image_history"}
    described = report["outcomes"].get("ok", 0) + report["outcomes"].get("deleted", 0)
    assert report["tables"]["images"]["rows"] == described > 200
    for name, table in (TABLES | ANALYSIS_TABLES).items():
        if name == "image_history":
            continue
        path = tmp_path / "lake" / name / f"dt={TODAY}" / "project=default" / f"{name}.parquet"
        assert report["tables"][name]["path"] == str(path)
        assert pq.read_schema(path).equals(table.schema)

    root = tmp_path / "lake" / "images"
    names = IMAGES.schema.names
    by_arrow = ds.dataset(root, partitioning="hive").to_table(columns=names).sort_by("id")
    by_pandas = pd.read_parquet(root)[names].sort_values("id")
    by_duckdb = duckdb.sql(f"SELECT {', '.join(names)} FROM '{root}/*/*/*.parquet' ORDER BY id").to_arrow_table()
    by_polars = pl.read_parquet(f"{root}/**/*.parquet", hive_partitioning=True).select(names).sort("id")
    expected = by_arrow.to_pylist()
    assert len(expected) == described
    assert pa.Table.from_pandas(by_pandas, IMAGES.schema, preserve_index=False).to_pylist() == expected
    assert by_duckdb.to_pylist() == expected
    assert by_polars.to_dicts() == expected


def test_played_days_each_print_a_summary_of_six_lines(image_snapshots, start_sandbox, tmp_path):
    result = image_snapshots("run", "--days", "2")
    assert result.returncode == 0, result.stderr
    yesterday = TODAY - dt.timedelta(days=1)
    headings = [line for line in result.stdout.splitlines() if line.startswith("20") and ": complete (" in line]
    assert [heading.split(":")[0] for heading in headings] == [f"{yesterday} default", f"{TODAY} default"]

    def value(sql):
        return duckdb.sql(sql.format(f"dt={TODAY}/project=default/*.parquet")).fetchall()

    changed = dict(
        value("SELECT change, COUNT(DISTINCT id) FROM 'lake/image_changes/{}' GROUP BY change ORDER BY change")
    )
    assert changed.keys() >= {"added", "changed", "removed"}
    open_ = "state IN ('new', 'open') AND suppressed_until IS NULL"
    found = dict(value(f"SELECT severity, COUNT(*) FROM 'lake/audit_findings/{{}}' WHERE {open_} GROUP BY severity"))
    ((new, resolved),) = value(
        "SELECT COUNT(*) FILTER (WHERE state = 'new'), COUNT(*) FILTER (WHERE state = 'resolved') "
        "FROM 'lake/audit_findings/{}'"
    )
    ((images, size),) = value("SELECT COUNT(*), SUM(size_bytes) FROM 'lake/image_costs/{}'")
    *lines, report = result.stdout.splitlines()[-7:]
    assert report == f"Report: lake/reports/dt={TODAY}/project=default/report.html"
    changes = ", ".join(f"{count} {change}" for change, count in changed.items())
    findings = ", ".join(f"{found[severity]} {severity}" for severity in ("high", "medium", "low"))
    assert lines[:3] == [
        f"  images    {images}",
        f"  changes   {changes} since {yesterday}",
        f"  findings  {findings} ({new} new, {resolved} resolved, 0 suppressed)",
    ]
    assert lines[3].startswith(f"  bytes     {size / 2**40:.1f} TiB, ")
    assert lines[4] == "  cost      0.00 EUR for the day, estimated; no price above zero (docs/costs.md)"
    layers, tags = "lake/registry_layers/{}", "lake/registry_tags/{}"
    ((stored,),) = value(f"SELECT SUM(s) FROM (SELECT MAX(size_bytes) AS s FROM '{layers}' GROUP BY layer_digest)")
    ((tagged,),) = value(f"SELECT COUNT(*) FROM '{tags}'")
    assert lines[5] == f"  registry  {stored / 2**40:.1f} TiB in {tagged} tags, each layer counted once"

    # Bills come two days late: on the first days of a month, the month has none.
    first = TODAY - dt.timedelta(days=9)
    exported = image_snapshots("focus", "--from", str(first), "--output", "costs.csv")
    assert (
        exported.stdout
        == f"costs.csv: {len(pd.read_csv('costs.csv'))} rows: estimates, and the bill where it is known\n"
    )
    bill = image_snapshots(
        "query",
        "SELECT CAST(SUM(billed_cost) AS DOUBLE) AS bill FROM billed_days WHERE "
        f"charge_date BETWEEN '{first}' AND '{TODAY}'",
    ).stdout
    billed = float(bill.splitlines()[1])
    assert billed > 0
    assert pd.read_csv("costs.csv")["BilledCost"].sum() == pytest.approx(billed)

    # The sandbox's days must not look like those of a cloud.
    mixed = image_snapshots("run", env={"IMAGE_SNAPSHOTS_ENDPOINT": "https://modelarts.example"})
    assert mixed.returncode == 2
    assert sentence_of(mixed).startswith(f"The lake {tmp_path}/lake holds days of the sandbox (project default), which")
    sandbox = start_sandbox(size=20)
    played = image_snapshots("run", "--days", "2", env=sandbox.env)
    assert (played.returncode, sentence_of(played)) == (
        2,
        "--days plays days of the embedded sandbox; a real endpoint (IMAGE_SNAPSHOTS_ENDPOINT) has no past days.",
    )


def test_day_can_be_rerun_and_rebuilt_and_status_and_verify_agree(image_snapshots, tmp_path):
    assert image_snapshots("status").stdout.splitlines()[1].split("\t")[:3] == [str(TODAY), "default", "missing"]
    first = json.loads(image_snapshots("run", "--json").stdout)[0]
    second = json.loads(image_snapshots("run", "--json").stdout)[0]
    assert first["run_id"] != second["run_id"]
    (path,) = (tmp_path / "lake/images").rglob("*.parquet")
    assert path.name == "images.parquet"
    manifest = json.loads(Path(second["manifest"]).read_text())
    kept = tmp_path / "lake/_manifests/superseded/project=default" / f"{manifest['previous_manifest_sha256']}.json"
    assert json.loads(kept.read_text())["run_id"] == first["run_id"]
    assert not list((tmp_path / "lake/_staging").rglob("*.parquet"))

    (day,) = json.loads(image_snapshots("status", "--json").stdout)
    assert (day["date"], day["project"], day["state"], day["has_open_attempt"]) == (
        str(TODAY),
        "default",
        "complete",
        False,
    )
    before = pq.read_table(path)
    assert day["images"] == before.num_rows

    result = image_snapshots("rebuild", "--date", str(TODAY), "--json")
    assert result.returncode == 0, result.stderr
    assert pq.read_table(path).equals(before)
    manifest = json.loads(Path(json.loads(result.stdout)[0]["manifest"]).read_text())
    assert manifest["rebuilt"] is True
    verified = image_snapshots("verify")
    assert verified.returncode == 0
    assert verified.stdout.splitlines()[-1] == "verified 1 partition: 0 problems"


def test_rebuild_of_a_missing_day_is_refused(image_snapshots):
    result = image_snapshots("rebuild", "--date", "2026-11-01")
    assert result.returncode == 2
    assert sentence_of(result).startswith("Nothing is published for 2026-11-01 of project default")
    result = image_snapshots("rebuild")
    assert (result.returncode, sentence_of(result)) == (2, "State the day to rebuild: --date YYYY-MM-DD, or --all.")


def test_failing_project_does_not_affect_the_others(image_snapshots, start_sandbox):
    sandbox = start_sandbox(projects={"alpha": "a" * 32, "beta": "b" * 32}, size=20)
    env = {
        **sandbox.env,
        "IMAGE_SNAPSHOTS_PROJECTS": json.dumps({"a": "a" * 32, "b": "0" * 32, "c": "b" * 32}),
        "IMAGE_SNAPSHOTS_INVENTORY": "modelarts:",
    }
    result = image_snapshots("run", "--json", env=env)
    reports = {report["project"]: report for report in json.loads(result.stdout)}
    assert {key: report["state"] for key, report in reports.items()} == {
        "a": "complete",
        "b": "failed",
        "c": "complete",
    }
    assert result.returncode == reports["b"]["exit_status"] == 2
    assert reports["a"]["tables"]["images"]["rows"] > 0


def test_too_many_failures_publish_nothing_and_only_those_are_requested_again(image_snapshots, start_sandbox, tmp_path):
    sandbox = start_sandbox(size=60, inventory_file=tmp_path / "inventory.csv")
    ids = pd.read_csv(tmp_path / "inventory.csv", dtype=str)["id"].str.lower().tolist()
    broken = {"answers": {id_: {"status": 400, "body": "broken"} for id_ in ids[:3]}}
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json=broken).raise_for_status()
    result = image_snapshots("run", env=sandbox.env)
    assert result.returncode == 1
    assert sentence_of(result).startswith("3 of ")
    assert "Most common: " in sentence_of(result)
    assert files_below(tmp_path / "lake") == {}
    before = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={}).raise_for_status()
    result = image_snapshots("run", env=sandbox.env)
    assert result.returncode == 0, result.stderr
    after = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
    assert {id_ for id_, count in after.items() if count != before[id_]} == set(ids[:3])


def test_few_failures_publish_an_incomplete_day_and_name_them(image_snapshots, start_sandbox, tmp_path):
    sandbox = start_sandbox(size=60, inventory_file=tmp_path / "inventory.csv")
    id_ = pd.read_csv(tmp_path / "inventory.csv", dtype=str)["id"].str.lower().iloc[0]
    broken = {"answers": {id_: {"status": 400, "body": "broken"}}}
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json=broken).raise_for_status()
    env = {**sandbox.env, "IMAGE_SNAPSHOTS_MAX_FAILED_RATIO": "0.1"}
    result = image_snapshots("run", env=env)
    assert result.returncode == 3, result.stderr
    assert f"without a response: {id_}" in result.stdout
    assert json.loads(image_snapshots("status", "--json").stdout)[0]["state"] == "incomplete"
    manifest = json.loads((tmp_path / f"lake/_manifests/dt={TODAY}/project=default.json").read_text())
    assert manifest["is_complete"] is False
    assert manifest["fetch"]["outcomes"]["failed"] == 1
    assert id_ not in json.dumps(manifest)


def test_second_run_of_a_partition_names_the_holder(image_snapshots, tmp_path):
    from pipelines.lake.layout import Lake, Partition

    with Lake("lake").locks.partition(Partition(TODAY, "default"), "run-of-somebody"):
        result = image_snapshots("run")
    assert result.returncode == 1
    assert f"The partition {TODAY} of project default is held by run run-of-somebody" in sentence_of(result)
    assert files_below(tmp_path / "lake") == {}


class TestMistakes:
    """Each mistake: one clear sentence, the right exit status, nothing half-published."""

    @pytest.fixture
    def sandbox(self, start_sandbox, tmp_path):
        return start_sandbox(size=20, inventory_file=tmp_path / "inventory.csv")

    @pytest.fixture
    def by_password(self, sandbox):
        return {k: v for k, v in sandbox.env.items() if k not in ("OS_ACCESS_KEY", "OS_SECRET_KEY")}

    @pytest.fixture
    def fails(self, image_snapshots, tmp_path):
        def check(status, *words, env=None, arguments=(), keeps_runs=False):
            result = image_snapshots("run", *arguments, env=env, keeps_runs=keeps_runs)
            sentence = sentence_of(result)
            assert result.returncode == status, (sentence, result.stdout)
            for word in words:
                assert word in sentence
            assert files_below(tmp_path / "lake") == {}
            return sentence

        return check

    def test_wrong_password_is_one_sentence(self, fails, by_password):
        sentence = fails(2, "password", env={**by_password, "OS_PASSWORD": "not-it-4711"})
        assert "not-it-4711" not in sentence

    def test_wrong_secret_key_is_one_sentence(self, fails, sandbox):
        assert "not-it-4711" not in fails(2, "OS_SECRET_KEY", env={**sandbox.env, "OS_SECRET_KEY": "not-it-4711"})

    def test_unreachable_endpoint_is_one_sentence(self, fails, sandbox):
        fails(1, "127.0.0.1:9", env={**sandbox.env, "IMAGE_SNAPSHOTS_ENDPOINT": "http://127.0.0.1:9"})

    def test_unknown_host_is_one_sentence(self, fails, sandbox):
        fails(1, "modelarts.invalid", env={**sandbox.env, "IMAGE_SNAPSHOTS_ENDPOINT": "https://modelarts.invalid"})

    def test_suspended_account_is_one_sentence(self, fails, sandbox):
        httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"suspended": True}).raise_for_status()
        fails(1, "ModelArts.6201", env=sandbox.env)

    def test_foreign_project_is_one_sentence(self, fails, by_password):
        fails(2, "project", env={**by_password, "OS_PROJECT_ID": "0" * 32})

    def test_missing_credentials_are_one_sentence(self, fails, sandbox):
        fails(2, "OS_", env={"IMAGE_SNAPSHOTS_ENDPOINT": sandbox.endpoint})

    def test_unwritable_lake_is_one_sentence(self, fails, tmp_path):
        (tmp_path / "file").write_text("")
        fails(2, "IMAGE_SNAPSHOTS_LAKE", env={"IMAGE_SNAPSHOTS_LAKE": str(tmp_path / "file" / "lake")})

    def test_unreadable_inventory_is_one_sentence(self, fails):
        fails(2, "missing.csv", env={"IMAGE_SNAPSHOTS_INVENTORY": "missing.csv"})

    def test_inventory_without_an_id_column_is_one_sentence(self, fails, tmp_path):
        (tmp_path / "images.csv").write_text("image,owner\na,b\n")
        fails(2, "images.csv", "'image'", "'owner'", env={"IMAGE_SNAPSHOTS_INVENTORY": "images.csv"})

    def test_empty_inventory_is_one_sentence(self, fails, tmp_path):
        (tmp_path / "images.csv").write_text("id\n")
        fails(2, "images.csv", "IMAGE_SNAPSHOTS_ALLOW_EMPTY_INVENTORY", env={"IMAGE_SNAPSHOTS_INVENTORY": "images.csv"})

    def test_run_for_yesterday_is_refused(self, fails):
        yesterday = str(TODAY - dt.timedelta(days=1))
        fails(2, f"{yesterday} is over", "nothing was fetched", arguments=("--date", yesterday))

    def test_run_for_tomorrow_is_refused(self, fails):
        tomorrow = str(TODAY + dt.timedelta(days=1))
        fails(2, f"{tomorrow} has not begun", arguments=("--date", tomorrow))

    def test_invalid_date_is_refused(self, fails):
        fails(2, "yesterday is not a date", arguments=("--date", "yesterday"))

    def test_unknown_project_is_refused(self, fails):
        fails(2, "--project nobody is not configured", arguments=("--project", "nobody"))

    def test_http_beyond_loopback_is_refused(self, fails):
        fails(2, "IMAGE_SNAPSHOTS_ENDPOINT", "https", env={"IMAGE_SNAPSHOTS_ENDPOINT": "http://modelarts.example.com"})

    def test_settings_that_are_not_numbers_are_refused(self, fails):
        fails(2, "IMAGE_SNAPSHOTS_CONCURRENCY", env={"IMAGE_SNAPSHOTS_CONCURRENCY": "many"})

    def test_unknown_option_is_refused(self, image_snapshots):
        result = image_snapshots("run", "--no-such-option")
        assert result.returncode == 2
        assert "No such option" in result.stderr

    def test_full_disk_is_one_sentence(self, command, tmp_path):
        """The lake on a file system of 300 kB, with room for the inventory but not for the day."""
        (tmp_path / "lake").mkdir()
        script = """
            mount -t tmpfs -o size=300k none lake && "$0" run
            status=$?
            find lake -path lake/_staging -prune -o -path lake/_locks -prune -o -type f -print
            exit $status
        """
        result = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script, command],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1
        assert sentence_of(result).startswith("No space left while writing ")
        assert result.stdout == f"{TODAY} default: failed\n"


def test_invalid_ids_are_never_sent_and_have_an_outcome(image_snapshots, start_sandbox, tmp_path):
    sandbox = start_sandbox(size=20, inventory_file=tmp_path / "inventory.csv")
    good = pd.read_csv(tmp_path / "inventory.csv", dtype=str)["id"].tolist()
    (tmp_path / "ids.txt").write_text("\n".join([*good, good[0].upper(), "", "group", "../../x", "not-a-uuid"]))
    env = {**sandbox.env, "IMAGE_SNAPSHOTS_INVENTORY": "ids.txt", "IMAGE_SNAPSHOTS_MAX_INVALID_RATIO": "0.5"}
    result = image_snapshots("run", env=env)
    assert result.returncode == 0, result.stderr
    assert "  not a UUID, never sent: 3 ids (outcome invalid_id in lake/responses/" in result.stdout
    manifest = json.loads((tmp_path / f"lake/_manifests/dt={TODAY}/project=default.json").read_text())
    assert manifest["fetch"]["outcomes"]["invalid_id"] == 3
    assert sum(manifest["fetch"]["outcomes"].values()) == len(good) + 3
    asked = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
    assert asked == {id_.lower(): 1 for id_ in good}


def test_many_faults_at_once_still_give_a_complete_day(image_snapshots, start_sandbox, tmp_path):
    faults = Faults(
        latency_ms=20,
        ratio_429=0.10,
        retry_after="0",
        ratio_500=0.05,
        ratio_reset=0.02,
        ratio_truncated=0.01,
        token_seconds=3,
    )
    sandbox = start_sandbox(size=600, inventory_file=tmp_path / "inventory.csv", faults=faults)
    env = {k: v for k, v in sandbox.env.items() if k not in ("OS_ACCESS_KEY", "OS_SECRET_KEY")}
    result = image_snapshots("run", "--json", env=env)
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)
    assert report["outcomes"].get("failed", 0) == 0
    assert sum(report["outcomes"].values()) == report["tables"]["inventory"]["rows"]
    manifest = json.loads(Path(report["manifest"]).read_text())
    stats = httpx.get(f"{sandbox.endpoint}/sandbox/stats").json()
    assert manifest["fetch"]["throttled"] == stats["answers"]["429"] > 30
    # One renewal for each expired token, not one for each of the 32 refused workers.
    began, ended = (dt.datetime.fromisoformat(manifest["fetch"][name]) for name in ("started_at", "finished_at"))
    ends_of_tokens = (ended - began).total_seconds() / 3 + 2
    assert 1 <= manifest["fetch"]["token_renewals"] <= ends_of_tokens
