"""Faults of a day, one by one: one outcome per id, nothing lost, nothing published too early."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import httpx
import orjson
import pyarrow.parquet as pq
import pytest

from pipelines.errors import AccessDeniedError, AccountSuspendedError, ConfigurationError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published
from pipelines.lake.stored_responses import failed_ids
from pipelines.maintenance.verify import verify
from pipelines.sandbox import Faults, SandboxOptions, running_sandbox
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION = Partition(TODAY, "default")


def image_id(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def error(code, message="said the API"):
    return {"error_code": code, "error_msg": message}


# Name of the fault -> (the image's response each time, the outcome, the kept code).
MATRIX = {
    "described": ({"body": {"id": "SAME", "name": "n"}}, "ok", None),
    "described under its id in capitals": ({"body": {"id": "SAME IN CAPITALS"}}, "ok", None),
    "described as deleted": ({"body": {"id": "SAME", "status": "DELETED"}}, "deleted", None),
    "does not exist, as 400": ({"status": 400, "body": error("ModelArts.6404")}, "not_found", "ModelArts.6404"),
    "does not exist, as 404": ({"status": 404, "body": error("ModelArts.6404")}, "not_found", "ModelArts.6404"),
    "does not exist, and nothing is said": ({"status": 404, "body": ""}, "not_found", "client.http_404"),
    "may not be read": ({"status": 403, "body": error("ModelArts.0108")}, "forbidden", "ModelArts.0108"),
    "workspace may not be read": ({"status": 403, "body": error("ModelArts.0112")}, "forbidden", "ModelArts.0112"),
    "may not be read for another reason": (
        {"status": 403, "body": error("ModelArts.9999")},
        "forbidden",
        "ModelArts.9999",
    ),
    "always throttled": (
        {"status": 429, "headers": {"Retry-After": "0"}, "body": error("APIG.0308")},
        "failed",
        "APIG.0308",
    ),
    "always busy, as 400": ({"status": 400, "body": error("ModelArts.2799", "throttled")}, "failed", "ModelArts.2799"),
    "always 500": ({"status": 500, "body": error("ModelArts.0001")}, "failed", "ModelArts.0001"),
    "always 502 with a page": ({"status": 502, "body": "<html>bad gateway</html>"}, "failed", "client.http_502"),
    "always 503 with nothing": ({"status": 503, "body": ""}, "failed", "client.http_503"),
    "always 504": ({"status": 504, "body": ""}, "failed", "client.http_504"),
    "always 408": ({"status": 408, "body": ""}, "failed", "client.http_408"),
    "a page with 200": ({"body": "<html>log in</html>"}, "failed", "client.not_json"),
    "a list with 200": ({"body": [1, 2]}, "failed", "client.not_object"),
    "nothing with 200": ({"body": ""}, "failed", "client.not_json"),
    "an error with 200": ({"body": error("ModelArts.0001")}, "failed", "ModelArts.0001"),
    "does not exist, with 200": ({"body": error("ModelArts.6404")}, "not_found", "ModelArts.6404"),
    "another image's answer": ({"body": {"id": image_id(999), "name": "x"}}, "failed", "client.id_differs"),
    "an answer without an id": ({"body": {"name": "x"}}, "failed", "client.id_differs"),
    "an unknown refusal": ({"status": 418, "body": error("ModelArts.1234")}, "failed", "ModelArts.1234"),
    "a redirect": (
        {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}, "body": ""},
        "failed",
        "client.redirect",
    ),
}


@pytest.fixture
def cloud(start_sandbox, monkeypatch):
    """Start a sandbox with faults, and point the environment at it."""

    def start(**options):
        sandbox = start_sandbox(**options)
        for name, value in sandbox.env.items():
            monkeypatch.setenv(name, value)
        return sandbox

    return start


@pytest.fixture(scope="module")
def one_cloud():
    """A sandbox whose faults each test sets itself."""
    with running_sandbox(SandboxOptions(size=1)) as sandbox:
        yield sandbox


def details_asked(sandbox):
    return sum(httpx.get(f"{sandbox.endpoint}/sandbox/requested").json().values())


def day_of(now=lambda: dt.datetime.now(dt.UTC), **settings):
    return SnapshotRun(PARTITION, "run", Settings(**{"lake": "lake", **settings}), now)


def test_every_kind_of_response_gets_its_outcome_and_none_is_lost(cloud, tmp_path):
    answers, expected = {}, {}
    for number, (_, (answer, outcome, code)) in enumerate(MATRIX.items()):
        id_ = image_id(number)
        text = json.dumps(answer).replace("SAME IN CAPITALS", id_.upper()).replace("SAME", id_)
        answers[id_], expected[id_] = json.loads(text), (outcome, code)
    invalid = ["not-a-uuid", "group", "278e88d15b7147668502b3ba72e824d9"]
    cloud(size=1, faults=Faults(answers=answers))
    (tmp_path / "ids.txt").write_text("\n".join([*answers, *invalid]))
    day = day_of(inventory="ids.txt", max_failed_ratio=1, max_invalid_ratio=1, concurrency=64)
    take_inventory(day)
    facts = fetch_responses(day, lambda _: None).facts
    manifest = publish_snapshot(day).manifest
    rows = pq.read_table(day.lake.table("responses", PARTITION)).to_pylist()
    outcomes = {row["id"]: (row["outcome"], row["error_code"]) for row in rows}
    names = dict(zip(answers, MATRIX, strict=True))
    got = {names[id_]: outcomes[id_] for id_ in answers}
    assert got == {names[id_]: kept for id_, kept in expected.items()}
    assert {id_: outcomes[id_] for id_ in invalid} == dict.fromkeys(invalid, ("invalid_id", None))
    assert len(rows) == len(answers) + len(invalid)
    assert facts.outcomes == dict(Counter(row["outcome"] for row in rows))
    assert manifest.is_complete is False
    assert {failed.id for failed in failed_ids(day.lake.table("responses", PARTITION))} == {
        id_ for id_, (outcome, _) in expected.items() if outcome == "failed"
    }
    for row in rows:
        if row["body"] is not None:
            canned = answers[row["id"]]["body"]
            assert row["body"] == (canned.encode() if isinstance(canned, str) else orjson.dumps(canned))
    images = pq.read_table(day.lake.table("images", PARTITION))["id"].to_pylist()
    assert images == sorted(id_ for id_, (outcome, _) in expected.items() if outcome in ("ok", "deleted"))
    assert verify(day.lake, [PARTITION]) == []


@pytest.mark.parametrize(
    ("happened", "answer", "kind", "words"),
    [
        (
            "the account is suspended",
            {"status": 401, "body": error("ModelArts.6201")},
            AccountSuspendedError,
            "ModelArts.6201",
        ),
        (
            "the account is in arrears",
            {"status": 403, "body": error("ModelArts.4116")},
            AccountSuspendedError,
            "ModelArts.4116",
        ),
        ("the keys are wrong", {"status": 403, "body": error("ModelArts.0206")}, AccessDeniedError, "OS_ACCESS_KEY"),
        (
            "the project is another tenant's",
            {"status": 404, "body": error("ModelArts.2786")},
            ConfigurationError,
            "project",
        ),
        ("the API does not exist", {"status": 404, "body": error("APIG.0101")}, ConfigurationError, "APIG.0101"),
        (
            "the path does not exist",
            {"status": 404, "body": error("ModelArts.2836")},
            ConfigurationError,
            "ModelArts.2836",
        ),
        ("the project id is wrong", {"status": 400, "body": error("ModelArts.0210")}, ConfigurationError, "project"),
    ],
)
def test_fatal_error_publishes_nothing(one_cloud, monkeypatch, tmp_path, happened, answer, kind, words):
    ids = [image_id(number) for number in range(200)]
    for name, value in one_cloud.env.items():
        monkeypatch.setenv(name, value)
    faults = Faults(answers=dict.fromkeys(ids, answer)).model_dump(mode="json")
    httpx.put(f"{one_cloud.endpoint}/sandbox/faults", json=faults).raise_for_status()
    before = details_asked(one_cloud)
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    day = day_of(inventory="ids.txt")
    take_inventory(day)
    with pytest.raises(kind, match=words):
        fetch_responses(day, lambda _: None)
    assert published(day.lake, PARTITION) is None
    assert details_asked(one_cloud) - before < 100


def test_clock_that_jumps_past_the_day_stops_the_run_and_keeps_responses(cloud, tmp_path):
    cloud(size=400, inventory_file=tmp_path / "inventory.csv", faults=Faults(latency_ms=50))
    noon = dt.datetime.combine(TODAY, dt.time(12), dt.UTC)
    clock = [noon]
    day = day_of(now=lambda: clock[0], concurrency=8)
    take_inventory(day)

    def jump(progress):
        if progress.done > 50:
            clock[0] = noon + dt.timedelta(days=2)

    with pytest.raises(ConfigurationError, match=f"{TODAY} is over"):
        fetch_responses(day, jump)
    assert published(day.lake, PARTITION) is None
    clock[0] = noon - dt.timedelta(hours=3)
    facts = fetch_responses(day, lambda _: None).facts
    assert facts.kept > 50
    assert publish_snapshot(day).manifest.is_complete


def test_server_that_is_away_for_a_while_costs_no_image(tmp_path, monkeypatch):
    """The sandbox is killed, its port refuses, and another one replaces it after that was noticed."""
    secrets = {"SANDBOX_PASSWORD": "p" * 20, "SANDBOX_ACCESS_KEY": "A" * 20, "SANDBOX_SECRET_KEY": "s" * 40}
    environment = {**os.environ, **secrets, "PYTHONPATH": str(ROOT)}

    def start(port):
        command = [sys.executable, "-m", "pipelines.sandbox", f"--port={port}", "--size=1500", "--latency-ms=20"]
        process = subprocess.Popen(
            [*command, f"--inventory-file={tmp_path / 'inventory.csv'}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = iter(process.stdout.readline, "\n")
        return process, dict(line.rstrip("\n").split("=", 1) for line in lines)

    first, env = start(0)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    port = int(env["IMAGE_SNAPSHOTS_ENDPOINT"].rsplit(":", 1)[1])
    processes = [first]

    def replace():
        first.send_signal(signal.SIGKILL)
        first.wait()
        was_noticed.wait()
        processes.append(start(port)[0])

    replacing, was_noticed, seen = threading.Thread(target=replace), threading.Event(), [-1, -1]
    try:
        day = day_of(concurrency=16)
        take_inventory(day)

        def tell(progress):
            if progress.done > 200 and not replacing.is_alive() and len(processes) == 1:
                replacing.start()
            # No response came between the two reports.
            elif replacing.ident is not None and {*seen} == {progress.done}:
                was_noticed.set()
            seen[:] = seen[1], progress.done

        facts = fetch_responses(day, tell).facts
        assert len(processes) == 2
        assert facts.failed == 0
        assert publish_snapshot(day).manifest.is_complete
    finally:
        was_noticed.set()
        if replacing.ident is not None:
            replacing.join()
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.parametrize("storage", ["disk", "bucket"])
def test_leftover_responses_are_not_used_by_the_next_attempt(cloud, tmp_path, s3, storage):
    """The run is killed after removing the note of its attempt, but before removing the responses."""
    cloud(size=5, inventory_file=tmp_path / "inventory.csv")
    lake = str(tmp_path / "lake") if storage == "disk" else s3.make_bucket("left-behind")
    day = day_of(lake=lake)
    take_inventory(day)
    total = sum(fetch_responses(day, lambda _: None).facts.outcomes.values())
    staging = day.lake.staging(PARTITION)
    left = staging.contents("checkpoint*" if storage == "disk" else "checkpoint/*/*")
    assert left
    publish_snapshot(day)
    for path, content in left.items():
        path.write_whole(content)
    again = day_of(lake=lake)
    take_inventory(again)
    facts = fetch_responses(again, lambda _: None).facts
    assert (facts.kept, sum(facts.outcomes.values())) == (0, total)


def test_rerun_leaves_the_published_day_readable_until_it_is_replaced(cloud, tmp_path):
    sandbox = cloud(size=60, inventory_file=tmp_path / "inventory.csv")
    day = day_of()
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    first = publish_snapshot(day).manifest
    path = Lake("lake").table("images", PARTITION)
    before = path.read_bytes()
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"suspended": True}).raise_for_status()
    take_inventory(day)
    with pytest.raises(AccountSuspendedError):
        fetch_responses(day, lambda _: None)
    assert path.read_bytes() == before
    assert published(day.lake, PARTITION) == first
    assert verify(day.lake, [PARTITION]) == []
