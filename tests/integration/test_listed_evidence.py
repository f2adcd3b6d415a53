"""What a day reads of the API besides its answers: the list of images and the notebooks."""

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
from pipelines.snapshot.steps import SnapshotRun, fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import NOTEBOOKS

DATE = dt.date(2026, 11, 16)
PARTITION = Partition(DATE, "default")
NOON = dt.datetime.combine(DATE, dt.time(12), dt.UTC)
SIZE = 1300
CATALOGUE = Catalogue("sandbox", SIZE, "default")
TOKENS = [notebook["token"] for notebook in CATALOGUE.notebooks(DATE)]


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
    # Compression would hide what is looked for in the files.
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
    ("usage", "endpoint", "reads"),
    [
        (None, None, True),
        (None, "https://modelarts.example.com", False),
        (True, "https://modelarts.example.com", True),
        (False, None, False),
    ],
)
def test_notebooks_are_read_of_the_sandbox_or_when_that_is_stated(usage, endpoint, reads):
    assert Settings(usage=usage, endpoint=endpoint).reads_usage is reads


async def test_the_notebook_list_holds_every_notebook_once(cloud):
    async with ModelArtsClient(cloud.endpoint, load_credentials(None, cloud.env)) as modelarts:
        pages = [page async for page in modelarts.list_notebooks()]
        assert modelarts.stats.requests == 3
    expected = list(CATALOGUE.notebooks(DATE))
    assert [len(page) for page in pages] == [100, 100, len(expected) - 200]
    assert [(book.id, book.name, book.status, book.image_id) for page in pages for book in page] == [
        (book["id"], book["name"], book["status"], book["image"]["id"]) for book in expected
    ]
    assert modelarts.notebooks_skipped == 0
    assert [token for token in TOKENS if token in repr(pages)] == []


def test_a_full_day_keeps_the_list_and_the_notebooks(cloud, tmp_path):
    before = requested(cloud)
    day = day_of(usage=True)
    take_inventory(day)
    facts = fetch_responses(day, lambda _: None).facts
    staged = bytes_below(tmp_path / "lake")
    assert (tmp_path / f"lake/_staging/dt={DATE}/project=default/answers.sqlite").exists()
    assert b"-notebook-0" in staged
    assert [token for token in TOKENS if token.encode() in staged] == []
    manifest = publish_snapshot(day).manifest
    assert (facts.list_was_read, facts.list_error) == (True, None)
    assert (facts.notebooks_were_read, facts.notebooks_error, facts.notebooks_skipped) == (True, None, 0)

    pages = rows("list_pages")
    listed = [item["id"] for page in pages for item in orjson.loads(page["body"])["data"]]
    assert listed == [item["id"] for item in CATALOGUE.page(DATE, 0, SIZE)]
    assert [page["page"] for page in pages] == list(range(7))
    assert all(hashlib.sha256(page["body"]).hexdigest() == page["body_sha256"] for page in pages)

    notebooks = rows("notebooks")
    expected = {book["id"]: book for book in CATALOGUE.notebooks(DATE)}
    assert [row["notebook_id"] for row in notebooks] == sorted(expected)
    for row in notebooks:
        book = expected[row["notebook_id"]]
        assert (row["snapshot_date"], row["project_id"]) == (DATE, cloud.project_id)
        assert (row["name"], row["status"], row["image_id"]) == (book["name"], book["status"], book["image"]["id"])
        assert facts.started_at.date() <= row["observed_at"].date()
    assert manifest.files["notebooks"].rows == len(expected)
    after = requested(cloud)
    assert {kind: after[kind] - before.get(kind, 0) for kind in after} == {
        "image": 40,
        "list": 7,
        "notebooks": 3,
    } | dict.fromkeys(after.keys() - {"image", "list", "notebooks"}, 0)
    assert facts.requests == 50
    published_bytes = bytes_below(tmp_path / "lake")
    assert [token for token in TOKENS if token.encode() in published_bytes] == []
    assert verify(day.lake, [PARTITION]) == []


def test_neither_is_read_when_that_is_not_wanted(cloud):
    manifest = take(reconcile=False)
    assert (manifest.files["list_pages"].rows, manifest.files["notebooks"].rows) == (0, 0)
    facts = manifest.fetch
    assert (facts.list_was_read, facts.list_error, facts.requests) == (False, None, 40)
    assert (facts.notebooks_were_read, facts.notebooks_error) == (False, None)


def test_a_day_is_published_without_the_lists_that_may_not_be_read(cloud):
    set_faults(cloud, lists_forbidden=True)
    manifest = take(usage=True)
    host = cloud.endpoint.removeprefix("http://")
    assert manifest.is_complete
    assert (manifest.fetch.list_was_read, manifest.fetch.notebooks_were_read) == (False, False)
    assert manifest.fetch.list_error == f"The image list of {host} cannot be read (HTTP 403 ModelArts.0108)."
    assert manifest.fetch.notebooks_error == f"The notebook list of {host} cannot be read (HTTP 403 ModelArts.0108)."
    assert (manifest.files["list_pages"].rows, manifest.files["notebooks"].rows) == (0, 0)
    assert manifest.files["images"].rows > 30
    assert verify(Lake("lake"), [PARTITION]) == []


def test_a_list_that_fails_halfway_leaves_no_pages(cloud):
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


def test_an_account_that_is_suspended_before_the_list_stops_the_run_as_ever(cloud):
    asked = requested(cloud).get("image", 0)
    day = day_of(usage=True)
    take_inventory(day)

    def suspend(progress):
        if progress.done == progress.total:
            set_faults(cloud, suspended=True)

    with pytest.raises(AccountSuspendedError):
        fetch_responses(day, suspend)
    assert published(day.lake, PARTITION) is None
    set_faults(cloud, suspended=False)
    manifest = take(usage=True)
    assert (manifest.fetch.kept, manifest.fetch.requests) == (40, 10)
    assert requested(cloud)["image"] - asked == 40


SCRIPT = """
import datetime as dt
from pipelines.snapshot.steps import Day, fetch_responses, take_inventory
from pipelines.errors import PipelineError
from pipelines.lake.layout import Partition
from pipelines.settings import Settings

noon = dt.datetime(2026, 11, 16, 12, tzinfo=dt.UTC)
day = Day(Partition(noon.date(), "default"), "ended", Settings(lake="lake", inventory="ids.txt"), lambda: noon)
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
def test_a_run_that_ends_while_it_reads_the_list_reads_all_of_it_the_next_time(cloud, number, told):
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
    assert (facts.kept, facts.requests) == (40, 7)
    publish_snapshot(day)
    pages = rows("list_pages")
    assert [page["page"] for page in pages] == list(range(7))
    assert all(page["observed_at"] > ended for page in pages)


@pytest.mark.parametrize(
    ("happened", "change", "says"),
    [
        ("twice the same", lambda table: pa.concat_tables([table.slice(0, 1), table]), "holds an id twice"),
        ("another order", lambda table: table.sort_by([("notebook_id", "descending")]), "ids out of order"),
        ("a column is missing", lambda table: table.drop_columns(["image_id"]), "notebooks does not have its columns"),
    ],
)
def test_notebooks_are_validated_before_anything_is_published(cloud, happened, change, says):
    day = day_of(usage=True)
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    path = day.staged(NOTEBOOKS.name)
    pq.write_table(change(pq.read_table(path)), path)
    # As if it had been written so.
    attempt = read_attempt(day.lake, day.partition)
    facts = attempt.files[NOTEBOOKS.name].model_copy(update={"sha256": path.sha256()})
    write_attempt(
        day.lake, day.partition, attempt.model_copy(update={"files": attempt.files | {NOTEBOOKS.name: facts}})
    )
    with pytest.raises(ValidationError, match=says):
        publish_snapshot(day)
    assert published(day.lake, PARTITION) is None
