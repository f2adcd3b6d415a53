"""A lake in an object store: whole runs, two parallel writers, an overloaded store, and error messages."""

import datetime as dt
import json
import os
import socket
import subprocess
import threading
import time
from contextlib import closing

import duckdb
import pytest
from published_days import publish_snapshot as publish_rows

from pipelines import open_lake
from pipelines.cloud.classification import ImageResponse
from pipelines.derive.costs import write_focus
from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError, PartitionBusyError, StorageError, StorageUnreachableError
from pipelines.lake import buckets, leases
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.object_storage import ObjectPath
from pipelines.lake.retention_records import Rules
from pipelines.maintenance.compaction import compact
from pipelines.maintenance.retention import apply_retention
from pipelines.maintenance.status import day_statuses
from pipelines.maintenance.verify import verify_derived
from pipelines.query.views import connect_lake
from pipelines.settings import Settings
from pipelines.snapshot.checkpoint import open_checkpoint
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import start_over
from pipelines.tables import RESPONSE_TABLES, Outcome

DATE = dt.date(2026, 11, 23)
PARTITION = Partition(DATE, "default")
NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


@pytest.fixture
def lake(s3):
    return Lake(s3.make_bucket("lake-bucket") + "/deep/lake")


@pytest.fixture
def impatient(monkeypatch):
    """A client that gives up after a second."""
    monkeypatch.setattr(buckets, "RETRY_SECONDS", 1)
    monkeypatch.setattr(buckets, "_RETRIES", 2)
    buckets._open_bucket.cache_clear()
    yield
    buckets._open_bucket.cache_clear()


def everything_in(url):
    return {str(path): path.read_bytes() for path in ObjectPath.parse(url).all_files()}


def test_command_line_keeps_a_lake_in_a_bucket_and_hides_its_secret(s3, image_snapshots, tmp_path):
    root = s3.make_bucket("cli-bucket") + "/lake"
    env = {"IMAGE_SNAPSHOTS_LAKE": root}
    refused = []

    def every_eighth(number, method, path):
        if number % 8 == 0:
            refused.append((method, path))
        return number % 8 == 0

    s3.slow_down = every_eighth
    run = image_snapshots("run", "--json", env=env, keeps_runs=True)
    s3.slow_down = lambda number, method, path: False
    assert run.returncode == 0, run.stderr
    assert len(refused) > 10
    (report,) = json.loads(run.stdout)
    # The sandbox's, of which no more is lost than on a disk.
    assert sum(report["outcomes"].values()) == report["tables"]["inventory"]["rows"] > 200
    verified = image_snapshots("verify", env=env)
    assert verified.returncode == 0
    assert verified.stdout.splitlines()[-1] == "verified 1 partition: 0 problems"
    asked = image_snapshots("query", "SELECT COUNT(*) AS n FROM images JOIN audit_findings USING (id)", env=env)
    assert asked.stdout.splitlines()[0] == '"n"'
    assert int(asked.stdout.splitlines()[1]) > 100
    lake, today = Lake(root), dt.date.fromisoformat(report["date"])
    assert [status.state for status in day_statuses(lake, ["default"], today, today)] == ["complete"]
    costs = write_focus(lake, today, today, ["default"], tmp_path / "focus.csv")
    assert costs == report["outcomes"]["ok"]
    # The local disk has no data, and the secret is nowhere.
    local = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in local if path.suffix in (".parquet", ".sqlite", ".duckdb")] == []
    secret = s3.env["AWS_SECRET_ACCESS_KEY"].encode()
    printed = "".join(run.stdout + run.stderr for run in (run, verified, asked))
    contents = [path.read_bytes() for path in local] + list(everything_in(root).values()) + [printed.encode()]
    assert len(contents) > 20
    assert not any(secret in content for content in contents)


def test_run_of_a_locked_partition_names_the_holder(s3, image_snapshots):
    root = s3.make_bucket("two-bucket")
    today = Partition(dt.datetime.now(dt.UTC).date(), "default")
    with Lake(root).locks.partition(today, "the other"):
        run = image_snapshots("run", env={"IMAGE_SNAPSHOTS_LAKE": root})
    assert run.returncode == 1
    holder = f"run the other (process {os.getpid()} on {socket.gethostname()}, since "
    assert f"The partition {today} is held by {holder}" in run.stderr
    assert Lake(root).contents.partitions() == []


def test_many_parallel_claims_never_give_two_holders(lake):
    inside, most, got, refused = 0, 0, 0, 0
    lock, start = threading.Lock(), threading.Barrier(6)

    def contend():
        nonlocal inside, most, got, refused
        start.wait()
        try:
            with lake.locks.partition(PARTITION, "run"):
                with lock:
                    inside, got = inside + 1, got + 1
                    most = max(most, inside)
                time.sleep(0.5)
                with lock:
                    inside -= 1
        except PartitionBusyError:
            with lock:
                refused += 1

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, got + refused) == (1, 6)
    assert got >= 1


def test_waiter_for_a_chain_gets_its_turn(lake):
    inside, most, turns = 0, 0, 0
    lock = threading.Lock()

    def take_turn():
        nonlocal inside, most, turns
        with lake.locks.chain("default"):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with lock:
                inside, turns = inside - 1, turns + 1

    threads = [threading.Thread(target=take_turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 4)
    assert list((lake.root / "_locks").all_files()) == []


def claim_of(lake, **facts):
    """Put a claim like another process."""
    path = lake.root / f"_locks/partitions/dt={DATE}/project=default/0.json"
    path.write_whole(json.dumps({"holder": "run other", "since": "2026-11-23T00:00:00", **facts}).encode())


def test_claim_of_another_machine_holds_until_it_expires(lake, monkeypatch):
    claim_of(lake, pid="1", host="elsewhere", machine="another", pid_began="1")
    with pytest.raises(PartitionBusyError, match=r"held by run other \(process 1 on elsewhere, since 2026-11-23T00"):
        with lake.locks.partition(PARTITION, "ours"):
            pass
    monkeypatch.setattr(leases, "RUNS_OUT_SECONDS", 0)
    # By the store's clock, which counts seconds.
    time.sleep(1.1)
    with lake.locks.partition(PARTITION, "ours"):
        # The dead claim was removed; ours exists.
        assert len(list((lake.root / "_locks").all_files())) == 1
    assert list((lake.root / "_locks").all_files()) == []


def test_claim_of_an_ended_local_process_does_not_hold(lake):
    with subprocess.Popen(["true"]) as process:
        pass
    claim_of(lake, pid=str(process.pid), host="here", machine=leases._machine(), pid_began="1")
    with lake.locks.partition(PARTITION, "ours"):
        pass


class Clock:
    """The leases' clock, which the test moves."""

    def __init__(self):
        self.ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead

    def sleep(self, seconds):
        time.sleep(seconds)

    def time(self):
        return time.time() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(leases, "time", found)
    return found


def test_holder_that_cannot_renew_stops_writing(lake, monkeypatch, clock):
    monkeypatch.setattr(leases, "TRUSTED_SECONDS", 300.0)
    with lake.locks.partition(PARTITION, "ours"):
        (lake.root / "written").write_whole(b"")
        # Not renewed: this is shorter than the renewal interval.
        monkeypatch.setattr(leases, "RENEWED_EVERY_SECONDS", 3_600.0)
        clock.ahead = 301
        with pytest.raises(StorageError, match="was lost: the object store could not be reached"):
            (lake.root / "not-written").write_whole(b"")
    assert [path.name for path in lake.root.all_files()] == ["written"]


def test_renewed_lock_lasts(lake, s3, monkeypatch, clock):
    monkeypatch.setattr(leases, "TRUSTED_SECONDS", 300.0)
    monkeypatch.setattr(leases, "RENEWED_EVERY_SECONDS", 0.05)

    def renewals():
        return sum(method == "PUT" and "_locks/" in path for method, path in s3.requests)

    with lake.locks.partition(PARTITION, "ours"):
        for _ in range(3):
            clock.ahead += 200
            seen, deadline = renewals(), time.monotonic() + 120
            # The second of two renewals began after the clock was moved.
            while renewals() < seen + 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        (lake.root / "written").write_whole(b"")


def test_unfinished_upload_never_appears(lake):
    path = lake.root / "big"
    with pytest.raises(RuntimeError, match="half-way"), path.writing() as file:
        file.write(b"x" * 20_000_000)
        raise RuntimeError("half-way")
    assert not path.is_there()


def test_file_replaced_during_reading_is_an_error_not_a_mixture(lake):
    path = lake.root / "file"
    path.write_whole(b"old" * 1_000_000)
    with path.open() as file:
        assert file.read(3) == b"old"
        path.write_whole(b"new" * 1_000_000)
        file.seek(2_500_000)
        with pytest.raises(StorageError, match="was replaced while it was read: run again"):
            file.read(3)


def test_sql_reads_only_the_lake_in_the_bucket(lake):
    secret = ObjectPath(lake.root.bucket, "elsewhere.csv")
    secret.write_whole(b"a\n1\n")
    (lake.root / "inside.csv").write_whole(b"a\n2\n")
    with closing(duckdb.connect()) as connection:
        connection.register_filesystem(lake.root.reader())
        assert connection.sql(f"FROM read_csv('{lake.root}/inside.csv')").fetchall() == [(2,)]
        with pytest.raises(duckdb.Error, match="is not in the lake"):
            connection.sql(f"FROM read_csv('{secret}')").fetchall()
        with pytest.raises(duckdb.Error, match="is read-only here"):
            connection.sql(f"COPY (SELECT 1) TO '{lake.root}/new.csv'")
    with pytest.raises(ConfigurationError, match="Nothing is published in the lake s3://lake-bucket/deep/lake"):
        connect_lake(lake)


def answer(number, outcome=Outcome.OK, size=1_000):
    id_ = f"00000000-0000-4000-8000-{number:012}"
    body = None if outcome == Outcome.FAILED else (id_ + os.urandom(size // 2).hex()).encode()
    return ImageResponse(id_, outcome, 200, None, None, 1, 5, NOON, body)


def test_response_parts_are_merged_by_id_and_the_last_counts(lake):
    staging = lake.staging(PARTITION)
    answers = {number: answer(number) for number in range(5_000)}
    # Retried ids come late, so parts overlap; the second attempt completes the first.
    late = list(range(0, 3_000, 100))
    first = [number for number in range(3_000) if number not in late]
    with closing(open_checkpoint(staging, "cloud a")) as store:
        store.want(iter([[answer.id for answer in answers.values()]]))
        store.put([answers[number] for number in first[:1_700]])
        store.put([answers[number] for number in first[1_700:] + late[:15]])
        store.put([answer(number, Outcome.FAILED) for number in (3_001, 3_002)])
    with closing(open_checkpoint(staging, "cloud a")) as store:
        store.want(iter([[answer.id for answer in answers.values()]]))
        assert store.outcomes() == {"ok": 2_985, "failed": 2}
        store.forget()
        lacking = list(store.lacking())
        assert lacking == [answers[number].id for number in sorted([*late[15:], *range(3_000, 5_000)])]
        store.put([answers[number] for number in [*late[15:], *range(3_000, 5_000)]])
        # Requested again after all: the later response counts.
        answers[7] = answer(7)
        store.put([answers[7]])
        rows = [row for batch in store.batches(DATE, "p1", []) for row in batch.to_pylist()]
    assert [(row["id"], row["body"]) for row in rows] == [(a.id, a.body) for a in answers.values()]
    assert {(row["snapshot_date"], row["project_id"], row["observed_at"]) for row in rows} == {(DATE, "p1", NOON)}
    with closing(open_checkpoint(staging, "cloud b")) as store:
        store.want(iter([[answers[1].id]]))
        assert store.outcomes() == {}


def test_overloaded_store_ends_a_run_with_one_sentence(lake, s3, impatient):
    lake = Lake(str(lake.root))
    s3.slow_down = lambda number, method, path: method == "PUT"
    with pytest.raises(StorageUnreachableError, match=r"overloaded at s3://lake-bucket/deep/lake/x \(SlowDown\)"):
        (lake.root / "x").write_whole(b"")


@pytest.mark.parametrize(
    ("env", "error", "sentence"),
    [
        ({"AWS_ACCESS_KEY_ID": ""}, ConfigurationError, "no credentials for the lake s3://none: set AWS_ACCESS_KEY_ID"),
        (
            {"AWS_ENDPOINT_URL": "http://192.0.2.1"},
            ConfigurationError,
            "AWS_ENDPOINT_URL is wrong: it must be https",
        ),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, StorageUnreachableError, "cannot be reached at s3://none/lake"),
        ({}, ConfigurationError, "s3://none/lake/_manifests cannot be used: there is no such bucket"),
    ],
)
def test_unusable_lake_is_one_sentence(s3, impatient, monkeypatch, env, error, sentence):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=sentence) as raised:
        Lake("s3://none/lake").contents.partitions()
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in repr(raised.value)


def test_refused_signature_is_one_sentence(s3, lake, impatient):
    def refuse(environ, start_response):
        body = b"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIDTESTONLY</AWSAccessKeyId></Error>"
        start_response("403 Forbidden", [("Content-Length", str(len(body)))])
        return [body]

    s3.application = refuse
    with pytest.raises(ConfigurationError) as raised:
        Lake(str(lake.root)).contents.partitions()
    assert str(raised.value) == (
        "The object store refuses access to s3://lake-bucket/deep/lake/_manifests (SignatureDoesNotMatch): correct "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what they may do."
    )


@pytest.mark.parametrize("root", ["s3://", "s3://UPPER/x", "s3://bucket/../x"])
def test_invalid_root_is_refused(root):
    with pytest.raises(ConfigurationError, match=r"must look like s3://bucket/directory"):
        Lake(root)


def test_reader_reads_a_bucket_whose_months_are_compacted_and_whose_old_responses_are_removed(s3):
    root = s3.make_bucket("upkeep-bucket")
    dates = [dt.date(2025, 10, 30), dt.date(2025, 10, 31), dt.date(2025, 11, 1)]
    days = [SnapshotRun(Partition(date, "default"), "run", Settings(lake=root)) for date in dates]
    lake = days[0].lake
    for number, day in enumerate(days):
        images = [{"id": f"i{n}", "name": f"v{number}", "content_hash": f"{number}", "size_bytes": n} for n in range(3)]
        inventory = [{"id": image["id"], "owner": "o"} for image in images]
        responses = [{"id": image["id"], "outcome": "ok", "body": b"{}", "body_sha256": "0"} for image in images]
        publish_rows(day, images=images, inventory=inventory, responses=responses)
        start_over(day)
        derive_days(day)

    def asked():
        with closing(connect_lake(lake)) as connection:
            return connection.sql(
                "SELECT snapshot_date, id, name, project FROM images ORDER BY snapshot_date, id"
            ).fetchall()

    before = asked()
    assert len(before) == 9
    # The reader for notebooks finds the same, with the access that the environment states.
    with open_lake(root) as reader:
        assert repr(reader) == f"<reader of the lake {root}>"
        assert reader.images()[["id", "name", "owner"]].values.tolist() == [[f"i{n}", "v2", "o"] for n in range(3)]
        assert reader.images(as_of=dates[0])["name"].tolist() == ["v0"] * 3
        assert (
            reader.changes(since=dates[2])[["field", "old_value", "new_value"]].values.tolist()
            == [["name", "v1", "v2"]] * 3
        )
        assert reader.arrow().days()["snapshot_date"].to_pylist() == dates
        proof = reader.evidence("i1", dates[1])
        assert (proof.body, proof.manifest_sha256) == (b"{}", lake.manifest(days[1].partition).sha256())
    now = dt.datetime(2025, 11, 2, 12, tzinfo=dt.UTC)
    month = compact(lake, "default", "2025-10", now)
    assert (month.days, month.was_current) == (2, False)
    assert compact(lake, "default", "2025-10", now).was_current
    s3.requests.clear()
    assert asked() == before
    read = {path for method, path in s3.requests if method == "GET" and path.endswith("/images.parquet")}
    assert read == {
        "/upkeep-bucket/_monthly/images/month=2025-10/project=default/images.parquet",
        "/upkeep-bucket/images/dt=2025-11-01/project=default/images.parquet",
    }
    plan = apply_retention(lake, "default", Rules(responses_days=1, snapshots_days=None), now)
    assert {removed.table for removed in plan.files} == set(RESPONSE_TABLES)
    assert list(lake.contents.files_of("responses")) == [days[2].partition]
    assert list(verify_derived(lake, "default")) == []
    assert asked() == before


def test_store_with_lagging_listings_is_refused(lake, s3):
    lists = s3.application

    def empty(environ, start_response):
        if "list-type" not in environ.get("QUERY_STRING", ""):
            return lists(environ, start_response)
        body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    s3.application = empty
    with pytest.raises(StorageError, match=r"does not list s3://lake-bucket/deep/lake/_locks/.*, so no run could be"):
        with lake.locks.partition(PARTITION, "run"):
            pass
