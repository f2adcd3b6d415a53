"""The further evidence of a day: the image list and the notebooks."""

import datetime as dt
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sandbox_faults import set_faults

from pipelines.cloud.credentials import load_credentials
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.errors import AccountSuspendedError, ValidationError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published, read_attempt, write_attempt
from pipelines.maintenance.verify import verify
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.scope import Scope
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.sources import notebooks
from pipelines.snapshot.sources.resources import Session
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGE_REFERENCES, USAGE_SOURCES

DATE = dt.date(2026, 11, 16)
PARTITION = Partition(DATE, "default")
NOON = dt.datetime.combine(DATE, dt.time(12), dt.UTC)
SIZE = 1300
CATALOGUE = Catalogue("sandbox", SIZE, "default")
NOTEBOOKS = [book for source in ("notebooks", "codelab") for book in CATALOGUE.resources.items(source, DATE, 0, SIZE)]
TOKENS = [notebook["token"] for notebook in NOTEBOOKS]


@pytest.fixture(scope="module")
def started():
    with running_sandbox(SandboxOptions(size=SIZE, day=DATE)) as sandbox:
        yield sandbox


@pytest.fixture
def cloud(started, tmp_path, monkeypatch):
    """A running sandbox without faults, and an inventory of forty of its images."""
    for name, value in started.env.items():
        monkeypatch.setenv(name, value)
    set_faults(started, "PUT")
    ids = [item["id"] for item in CATALOGUE.page(DATE, 0, 40)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    return started


def requested(cloud):
    return httpx.get(f"{cloud.endpoint}/sandbox/stats").json()["requests"]


def day_of(**settings):
    # Compression would hide the searched text in the files.
    return SnapshotRun(
        PARTITION,
        "run",
        Settings(**({"lake": "lake", "inventory": "ids.txt", "parquet_compression": "none"} | settings)),
        lambda: NOON,
    )


def take(**settings):
    day = day_of(**settings)
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    return publish_snapshot(day).manifest


def rows(name):
    return pq.read_table(Lake("lake").table(name, PARTITION)).to_pylist()


def bytes_below(root):
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("usage", "endpoint", "sources"),
    [
        (None, None, [*USAGE_SOURCES]),
        (None, "https://modelarts.example.com", []),
        ("all", "https://modelarts.example.com", [*USAGE_SOURCES]),
        ("true", "https://modelarts.example.com", [*USAGE_SOURCES]),
        ("false", None, []),
        ("none", None, []),
        ("Services, notebooks", "https://modelarts.example.com", ["notebooks", "services"]),
    ],
)
def test_usage_is_read_of_the_sandbox_or_when_that_is_stated(usage, endpoint, sources):
    assert Settings(usage=usage, endpoint=endpoint).usage_sources == sources


async def test_notebook_list_has_every_notebook_once(cloud):
    async with ModelArtsClient(cloud.endpoint, load_credentials(None, cloud.env)) as modelarts:
        session = Session(modelarts, Scope(["0"], "stated"), 4, lambda _: {})
        pages = [page async for page in notebooks.read(session)]
        assert modelarts.stats.requests == 4
    assert [len(page) for page in pages] == [100, 100, len(list(CATALOGUE.notebooks(DATE))) - 200, 26]
    assert [(book.id, book.name, book.status, book.images[0][0].image_id) for page in pages for book in page] == [
        (book["id"], book["name"], book["status"], book["image"]["id"]) for book in NOTEBOOKS
    ]
    assert [token for token in TOKENS if token in repr(pages)] == []


def test_full_day_keeps_the_list_and_the_notebooks(cloud, tmp_path):
    before = requested(cloud)
    day = day_of(usage="notebooks")
    take_inventory(day)
    facts = fetch_responses(day, lambda _: None).facts
    staged = bytes_below(tmp_path / "lake")
    assert (tmp_path / f"lake/_staging/dt={DATE}/project=default/checkpoint.sqlite").exists()
    assert b"-notebook-0" in staged
    assert [token for token in TOKENS if token.encode() in staged] == []
    manifest = publish_snapshot(day).manifest
    assert (facts.list_was_read, facts.list_error) == (True, None)
    source = facts.sources["notebooks"]
    assert (source.was_read, source.error, source.skipped, source.requests) == (True, None, 0, 4)

    pages = rows("list_pages")
    listed = [item["id"] for page in pages for item in orjson.loads(page["body"])["data"]]
    assert listed == [item["id"] for item in CATALOGUE.page(DATE, 0, SIZE)]
    assert [page["page"] for page in pages] == list(range(7))
    assert all(hashlib.sha256(page["body"]).hexdigest() == page["body_sha256"] for page in pages)

    references = rows("image_references")
    expected = {book["id"]: book for book in NOTEBOOKS}
    assert [row["resource_id"] for row in references] == sorted(expected)
    for row in references:
        book = expected[row["resource_id"]]
        assert (row["snapshot_date"], row["project_id"], row["kind"]) == (DATE, cloud.project_id, "notebook")
        assert (row["name"], row["status"], row["image_id"]) == (book["name"], book["status"], book["image"]["id"])
        assert (row["image_reference"], row["user"]) == (book["image"]["swr_path"], book["user"]["name"])
        assert facts.started_at.date() <= row["observed_at"].date()
    assert manifest.files["image_references"].rows == len(expected) == source.items
    after = requested(cloud)
    assert {kind: after[kind] - before.get(kind, 0) for kind in after} == {
        "image": 40,
        "list": 7,
        "notebooks": 4,
        "workspaces": 1,
    } | dict.fromkeys(after.keys() - {"image", "list", "notebooks", "workspaces"}, 0)
    assert facts.requests == 52
    published_bytes = bytes_below(tmp_path / "lake")
    assert [token for token in TOKENS if token.encode() in published_bytes] == []
    assert verify(day.lake, [PARTITION]) == []


def test_neither_list_is_read_if_switched_off(cloud):
    manifest = take(reconcile=False)
    assert (manifest.files["list_pages"].rows, manifest.files["image_references"].rows) == (0, 0)
    facts = manifest.fetch
    assert (facts.list_was_read, facts.list_error, facts.requests) == (False, None, 41)
    assert (facts.usage_kinds, facts.usage_is_observed) == ([], False)


def test_day_is_published_without_unreadable_lists(cloud):
    set_faults(cloud, lists_forbidden=True)
    manifest = take(usage="notebooks")
    host = cloud.endpoint.removeprefix("http://")
    assert manifest.is_complete
    source = manifest.fetch.sources["notebooks"]
    assert (manifest.fetch.list_was_read, source.was_read) == (False, False)
    assert manifest.fetch.list_error == f"The image list of {host} cannot be read (HTTP 403 ModelArts.0108)."
    assert source.error == f"The notebook list of {host} cannot be read (HTTP 403 ModelArts.0108)."
    assert (manifest.files["list_pages"].rows, manifest.files["image_references"].rows) == (0, 0)
    assert manifest.files["images"].rows > 30
    assert verify(Lake("lake"), [PARTITION]) == []


def test_list_that_fails_halfway_leaves_no_pages(cloud):
    set_faults(cloud, latency_ms=150)
    before = requested(cloud).get("list", 0)

    def forbid():
        while requested(cloud).get("list", 0) < before + 2:
            time.sleep(0.02)
        set_faults(cloud, lists_forbidden=True)

    day = day_of()
    take_inventory(day)
    forbidding = threading.Thread(target=forbid)
    forbidding.start()
    facts = fetch_responses(day, lambda _: None).facts
    forbidding.join()
    assert facts.list_error is not None
    assert 42 < facts.requests < 47
    assert publish_snapshot(day).manifest.files["list_pages"].rows == 0


def test_account_suspended_before_the_list_stops_the_run(cloud):
    asked = requested(cloud).get("image", 0)
    day = day_of(usage="notebooks")
    take_inventory(day)

    def suspend(progress):
        if progress.done == progress.total:
            set_faults(cloud, suspended=True)

    with pytest.raises(AccountSuspendedError):
        fetch_responses(day, suspend)
    assert published(day.lake, PARTITION) is None
    set_faults(cloud, suspended=False)
    manifest = take(usage="notebooks")
    assert (manifest.fetch.kept, manifest.fetch.requests) == (40, 12)
    assert requested(cloud)["image"] - asked == 40


SCRIPT = """
import datetime as dt
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, take_inventory
from pipelines.errors import PipelineError
from pipelines.lake.layout import Partition
from pipelines.settings import Settings

noon = dt.datetime(2026, 11, 16, 12, tzinfo=dt.UTC)
day = SnapshotRun(Partition(noon.date(), "default"), "ended", Settings(lake="lake", inventory="ids.txt"), lambda: noon)
take_inventory(day)
try:
    fetch_responses(day, lambda _: None)
except PipelineError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, ""),
        (signal.SIGTERM, "Stopped by SIGTERM with 40 of 40 ids answered: run again today to go on from there.\n"),
    ],
)
def test_run_stopped_during_the_list_reads_it_completely_next_time(cloud, number, told):
    set_faults(cloud, latency_ms=150)
    before = requested(cloud).get("list", 0)
    command, env = [sys.executable, "-c", SCRIPT], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        while requested(cloud).get("list", 0) < before + 3:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        assert process.communicate()[0].decode() == told
    ended = dt.datetime.now(dt.UTC)
    day = day_of()
    assert not day.staged("list_pages").exists()
    set_faults(cloud, latency_ms=0)
    facts = fetch_responses(day, lambda _: None).facts
    assert (facts.kept, facts.requests) == (40, 8)
    publish_snapshot(day)
    pages = rows("list_pages")
    assert [page["page"] for page in pages] == list(range(7))
    assert all(page["observed_at"] > ended for page in pages)


@pytest.mark.parametrize(
    ("happened", "change", "says"),
    [
        ("twice the same", lambda table: pa.concat_tables([table.slice(0, 1), table]), "holds an id twice"),
        ("another order", lambda table: table.sort_by([("resource_id", "descending")]), "ids out of order"),
        (
            "a column is missing",
            lambda table: table.drop_columns(["image_id"]),
            "image_references does not have its columns",
        ),
    ],
)
def test_references_are_validated_before_anything_is_published(cloud, happened, change, says):
    day = day_of(usage="notebooks")
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    path = day.staged(IMAGE_REFERENCES.name)
    pq.write_table(change(pq.read_table(path)), path)
    # As if it had been written so.
    attempt = read_attempt(day.lake, day.partition)
    facts = attempt.files[IMAGE_REFERENCES.name].model_copy(update={"sha256": path.sha256()})
    write_attempt(
        day.lake, day.partition, attempt.model_copy(update={"files": attempt.files | {IMAGE_REFERENCES.name: facts}})
    )
    with pytest.raises(ValidationError, match=says):
        publish_snapshot(day)
    assert published(day.lake, PARTITION) is None
