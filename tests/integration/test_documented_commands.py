"""The commands, files and settings in the documentation work as the page says.

test_query runs the queries of docs/query.md, test_documented_reading the examples that read the lake.
"""

import re
import shlex
import shutil
from collections import Counter
from itertools import pairwise

import duckdb
import pytest
from once_per_run import once_per_run
from proved_days import A, B, proved_day, publish_proved

from pipelines.derive.audit import read_rules, read_suppressions
from pipelines.derive.prices import read_price_book
from pipelines.inputs.cron import check_cron
from pipelines.settings import ROOT, Settings

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))

# Blocks of commands that are not run here, by page and first word, with the reason.
NOT_RUN = {
    ("CONTRIBUTING.md", ".ci/compile-requirements"): "asks a registry",
    ("CONTRIBUTING.md", ".venv/bin/python"): "the tests of the dictionary and of the scripts compare what it writes",
    ("CONTRIBUTING.md", "python3"): "the tests themselves; test_repository compares the command with CI's",
    ("README.md", "python3"): "installs; CI runs the second line, and most tests what the first one ends with",
    ("docs/dbt.md", "python3"): "installs dbt; test_dbt_build runs it",
    ("docs/engines.md", "sudo"): "installs Java and Spark",
    ("docs/iceberg.md", "export"): "needs a REST catalog; test_catalog loads one by PyIceberg's configuration",
    ("docs/metrics.md", "node_exporter"): "needs the node exporter; test_metrics reads the file by Prometheus' parsers",
    ("docs/operations.md", "useradd"): "needs root and PostgreSQL; test_production_instance runs what it sets up",
    ("docs/operations.md", "sudo"): "needs that user",
    ("docs/operations.md", "systemctl"): "needs systemd",
    ("docs/operations.md", "as_user()"): "needs that user and systemd",
    ("docs/scale-out.md", "docker"): "needs Docker; test_deploy reads what it deploys",
}


def blocks(page, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands(page):
    """The commands of a page's blocks, as lists of words, without the program's name."""
    lines = [shlex.split(line, comments=True) for block in blocks(page, "sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["image-snapshots"]]


def settings_of(text):
    """Values by name, for lines that are settings."""
    found = (re.match(r"([A-Z][A-Z_]+)=('[^']*'|\S+)", line) for line in text.splitlines())
    return {one[1]: one[2].strip("'") for one in found if one}


def test_every_documented_command_block_is_run_or_excused():
    seen = Counter()
    for page in PAGES:
        for block in blocks(page, "sh"):
            first = next(line for line in block.splitlines() if line and not line.startswith("#")).split()[0]
            if first != "image-snapshots" and (first.islower() or not settings_of(block)):
                seen[str(page.relative_to(ROOT)), first] += 1
    assert seen.keys() == NOT_RUN.keys()
    run_here = {"docs/costs.md", "docs/operations.md", "docs/query.md", "docs/report.md", "docs/retention.md"}
    assert {str(page.relative_to(ROOT)) for page in PAGES if commands(page)} == run_here


@pytest.fixture
def of_fortnight(image_snapshots, fortnight, tmp_path):
    """Run a command on two weeks that end on the day in the pages."""
    (tmp_path / "sql").symlink_to(ROOT / "sql")
    (tmp_path / "lake").symlink_to(fortnight)
    (tmp_path / "top.sql").write_text("SELECT name FROM images_latest")

    def run(*words):
        done = image_snapshots(*words)
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.mark.parametrize("page", ["docs/query.md", "docs/costs.md", "docs/report.md"])
def test_documented_reading_commands_run(of_fortnight, tmp_path, page):
    known = duckdb.sql("SELECT min(id) FROM 'lake/images/*/*/*.parquet'").fetchall()[0][0]
    for documented in commands(page):
        words = [known if before == "--image" else word for before, word in pairwise(["", *documented])]
        # Without a terminal, the prompt takes the query from standard input.
        done = of_fortnight(*words, *(["SELECT 1"] if words == ["query"] else []))
        assert done.returncode == 0, done.stderr
        if "--output" in words:
            assert (tmp_path / words[words.index("--output") + 1]).stat().st_size > 0
        else:
            assert done.stdout.startswith('"'), words


def test_documented_focus_export_runs(of_fortnight, tmp_path):
    (line,) = re.findall(r"`image-snapshots (focus --from [^`]*)`", (ROOT / "docs/costs.md").read_text())
    assert of_fortnight(*line.split()).returncode == 0
    rows = duckdb.sql("SELECT count(*), sum(BilledCost) FROM 'focus.csv'").fetchall()
    ((images,),) = duckdb.sql("SELECT count(*) FROM 'lake/image_costs/*/*/*.parquet'").fetchall()
    # Beside the images: what the bill of a day has that belongs to no image.
    assert rows[0][0] > images
    assert rows[0][1] > 0


def test_documented_daily_commands_run(of_fortnight):
    ran = {tuple(words): of_fortnight(*words) for words in commands("docs/operations.md") if words != ["verify"]}
    assert ran.keys() == {("status",), ("status", "--check"), ("verify", "--quick")}
    assert ran[("status",)].returncode == 0
    # The fortnight is in the past, whatever today is.
    assert ran[("status", "--check")].returncode == 1
    assert ran[("status", "--check")].stdout == ran[("status",)].stdout
    verified = ran[("verify", "--quick")]
    assert verified.returncode == 0
    (shown,) = [block for block in blocks("docs/operations.md", "") if block.startswith("newest manifest")]
    said = [re.sub(r"[0-9a-f]{64}", "HASH", line) for line in verified.stdout.splitlines()]
    expected = re.sub(r"[0-9a-f]{64}", "HASH", shown).replace("1 partition:", "14 partitions:").splitlines()
    assert said[-len(expected) :] == expected


def make_old(directory):
    """Two projects with a day a year ago, one in a past month, and a newest one."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(directory)
        for project in ("default", "prod"):
            for date in ("2025-11-23", "2026-10-01", "2026-11-20"):
                publish_proved(proved_day(date, project), {A: "PUBLIC", B: "PRIVATE"})
    return directory / "lake"


NUMBERS = r"[\d.]+ [KM]iB|[\d,]*\d"


def test_documented_compaction_and_retention_run(image_snapshots, tmp_path_factory, tmp_path):
    shutil.copytree(once_per_run(tmp_path_factory, "documented-old", make_old), tmp_path / "lake")
    env = {"IMAGE_SNAPSHOTS_PROJECTS": '{"default": "p1", "prod": "p1"}'}
    every, one, planned, applied = (image_snapshots(*words, env=env) for words in commands("docs/retention.md"))
    assert [done.returncode for done in (every, one, planned, applied)] == [0, 0, 0, 0]
    assert (tmp_path / "lake/_monthly/images/month=2026-10/project=prod/images.parquet").exists()
    assert one.stdout.splitlines()[1].split("\t")[:3] == ["2026-10", "prod", "current"]
    (shown,) = [block for block in blocks("docs/retention.md", "") if block.startswith("project")]
    expected = [re.split(r"  +", line) for line in shown.splitlines()]
    header, *rows, total = planned.stdout.splitlines()
    assert header.split("\t") == expected[0]
    assert [row.split("\t")[:3] for row in rows if row.startswith("default")] == [row[:3] for row in expected[1:-1]]
    assert re.sub(NUMBERS, "N", total) == re.sub(NUMBERS, "N", shown.splitlines()[-1])
    assert not (tmp_path / "lake/responses/dt=2025-11-23/project=prod/responses.parquet").exists()


@pytest.mark.parametrize("page", ["docs/audit.md", "docs/costs.md"])
def test_documented_queries_of_other_pages_run(of_fortnight, page):
    queries = [query for query in blocks(page, "sql") if not query.startswith("-- id:")]
    assert len(queries) == {"docs/audit.md": 2, "docs/costs.md": 3}[page]
    for query in queries:
        if "FROM 'lake/" in query:
            assert duckdb.sql(query.strip().removesuffix(";")).fetchall() != []
            continue
        done = of_fortnight("query", query)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) >= 2


def test_documented_files_are_valid(tmp_path):
    (rule,) = [query for query in blocks("docs/audit.md", "sql") if query.startswith("-- id:")]
    (tmp_path / "latest_tag.sql").write_text(rule)
    (found,) = [rule for rule in read_rules(tmp_path) if rule.name == "latest_tag"]
    assert (found.severity, found.error) == ("medium", None)
    (tmp_path / "suppressions.toml").write_text(*blocks("docs/audit.md", "toml"))
    assert [entry.rule for entry in read_suppressions(tmp_path / "suppressions.toml")] == [
        "public_dedicated_image",
        "older_than_a_year",
    ]
    (tmp_path / "prices.toml").write_text(*blocks("docs/costs.md", "toml"))
    assert read_price_book(tmp_path / "prices.toml").currency == "EUR"


@pytest.mark.parametrize(
    "page", ["README.md", "docs/operations.md", "docs/object-storage.md", "docs/scale-out.md", "docs/engines.md"]
)
def test_documented_settings_are_accepted(monkeypatch, tmp_path, page):
    shown = {}
    for block in blocks(page, "sh"):
        found = settings_of(block)
        if found and not block.startswith(("as_user", "useradd")):
            (tmp_path / ".env").write_text(block if page != "docs/engines.md" else block[block.index("IMAGE_") :])
            with monkeypatch.context() as patched:
                # Settings of the file are dropped with the block.
                for name in found:
                    patched.setenv(name, "")
                    patched.delenv(name)
                settings = Settings.load()
            shown |= found
    assert shown
    for name in shown:
        if name.startswith("IMAGE_SNAPSHOTS_"):
            assert name.removeprefix("IMAGE_SNAPSHOTS_").lower() in Settings.model_fields
    assert settings is not None


def test_documented_cron_lines_are_valid():
    lines = [
        (page.name, re.match(r"((?:\S+ ){4}\S+)  (cd \S+ && \S+ (\w+)(?: --.*)?)$", line))
        for page in PAGES
        for block in blocks(page, "")
        for line in block.splitlines()
    ]
    found = {(name, match[3]): check_cron(match[1]) for name, match in lines if match}
    default = Settings.model_fields["schedule"].default
    assert found == {
        ("README.md", "run"): default,
        ("operations.md", "run"): default,
        ("operations.md", "verify"): "37 9 * * 0",
        ("notifications.md", "notify"): "7 6 * * *",
        ("retention.md", "compact"): "47 7 2 * *",
    }
