"""`verify` for scripts and auditors: complete JSON, exit statuses, and hashes noted elsewhere."""

import dataclasses
import hashlib
import json
import shutil

import pytest
from permissions import unreadable
from proved_days import A, B, proved_day, publish_proved
from typer.testing import CliRunner

from assets.cli import app
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake
from pipelines.lake.witnesses import open_witness, read_witnesses
from pipelines.run import utc_now
from pipelines.snapshot.steps import publish_snapshot

DATES = ("2025-10-01", "2025-10-02")


@pytest.fixture(scope="module")
def two_days(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        for date in DATES:
            publish_proved(proved_day(date), {A: "PRIVATE", B: "PUBLIC"})
    return root / "lake"


@pytest.fixture
def lake(two_days, tmp_path):
    shutil.copytree(two_days, tmp_path / "lake")
    return Lake("lake")


def run(*arguments):
    """Exit status and the printed JSON."""
    result = CliRunner().invoke(app, ["verify", "--json", *arguments])
    return result.exit_code, json.loads(result.stdout)


def digest_of(lake, date):
    return hashlib.sha256(lake.manifest(proved_day(date).partition).read_bytes()).hexdigest()


def test_intact_lake_prints_the_newest_hashes(lake):
    status, report = run("--quick")
    assert (status, report["partitions"], report["problems"]) == (0, 2, [])
    assert report["newest_manifest_sha256"] == {"default": digest_of(lake, DATES[1])}
    assert {"path": "", "note": "Left out by --quick: the content of rows, and deriving tables again."} in report[
        "notes"
    ]


def test_problem_gives_exit_status_1_and_a_path(lake):
    lake.table("images", proved_day(DATES[0]).partition).unlink()
    status, report = run()
    assert status == 1
    assert report["problems"] == [
        {"path": "images/dt=2025-10-01/project=default/images.parquet", "problem": "The file is missing."}
    ]


def test_copied_directory_does_not_stop_verify(lake):
    """A copy of a directory of manifests, made by a hurried operator."""
    shutil.copytree(lake.root / "_manifests" / f"dt={DATES[0]}", lake.root / "_manifests" / f"dt={DATES[0]}.bak")
    status, report = run("--quick")
    assert (status, report["problems"]) == (0, [])
    assert "_manifests/dt=2025-10-01.bak" in [note["path"] for note in report["notes"]]


def test_json_is_complete_for_a_wrong_option(lake):
    status, report = run("--date", "yesterday")
    assert (status, report["error"]) == (2, "yesterday is not a date: write it as YYYY-MM-DD.")
    status, report = run("--project", "none")
    assert status == 2
    assert report["error"].startswith("Nothing is published under ")
    status, report = run("--witness", "0123")
    assert status == 2
    assert report["error"].startswith("--witness 0123 is neither a SHA-256 (64 hexadecimal digits) nor a file")


def test_json_is_complete_for_an_unreadable_directory(two_days, open_directory):
    shutil.copytree(two_days, open_directory / "lake")
    closed = open_directory / "lake" / "responses"
    with unreadable(closed):
        status, report = run()
    assert status == 2
    assert str(closed) in report["error"]


def test_noted_manifest_is_found_or_reported_missing(lake, tmp_path):
    first, second = (digest_of(lake, date) for date in DATES)
    (tmp_path / "notes.txt").write_text(f"# noted by mail\n\n2025-10-02\tdefault\t{second.upper()}\tat noon\n")
    status, report = run("--quick", "--witness", first, "--witness", "notes.txt")
    assert status == 0
    assert report["witnesses"] == [
        {"sha256": first, "path": "_manifests/dt=2025-10-01/project=default.json"},
        {"sha256": second, "path": "_manifests/dt=2025-10-02/project=default.json"},
    ]
    # The newest day is removed completely: only the note knows it.
    for path in sorted(lake.root.glob(f"*/dt={DATES[1]}")):
        shutil.rmtree(path)
    assert run("--quick")[0] == 0
    status, report = run("--quick", "--witness", "notes.txt")
    assert status == 1
    assert report["problems"] == [
        {
            "path": "_manifests",
            "problem": f"No record has the noted SHA-256 {second} (noted: 2025-10-02 default at noon): it was changed "
            "or removed, or is from another lake.",
        }
    ]


def test_replaced_manifest_is_still_found(lake):
    noted = digest_of(lake, DATES[1])
    publish_proved(proved_day(DATES[1]), {A: "PRIVATE"}, hour=14)
    status, report = run("--quick", "--witness", noted)
    assert status == 0
    assert report["witnesses"][0]["path"] == f"_manifests/superseded/project=default/{noted}.json"


def test_run_adds_its_manifest_to_the_witness_file(lake, tmp_path):
    notes = tmp_path / "witness.tsv"
    notes.write_text("# of this lake\n")
    day = dataclasses.replace(proved_day(DATES[1], witness=notes), run_id="again", now=utc_now)
    publish_snapshot(day)
    comment, line = notes.read_text().splitlines()
    assert comment == "# of this lake"
    date, project, digest, published_at = line.split("\t")
    assert (date, project, digest) == (DATES[1], "default", digest_of(lake, DATES[1]))
    assert json.loads(lake.manifest(proved_day(DATES[1]).partition).read_text())["published_at"].startswith(
        published_at[:19]
    )
    assert [witness.sha256 for witness in read_witnesses([str(notes)])] == [digest]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("lake/witness.tsv", "The witness file lake/witness.tsv is inside the lake"),
        ("nowhere/witness.tsv", "The witness file nowhere/witness.tsv cannot be written (No such file or directory)"),
    ],
)
def test_unwritable_witness_file_prevents_publication(lake, path, sentence):
    before = digest_of(lake, DATES[1])
    with pytest.raises(ConfigurationError) as raised:
        publish_snapshot(proved_day(DATES[1], witness=path))
    assert str(raised.value).startswith(sentence)
    assert digest_of(lake, DATES[1]) == before


def test_unset_witness_notes_nothing(lake):
    with open_witness(None, lake) as note:
        note(publish_proved(proved_day(DATES[1]), {A: "PRIVATE"}, hour=14))
    assert [path.name for path in lake.root.parent.iterdir()] == ["lake"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# nothing\n", "notes.txt holds no SHA-256, so there is nothing to look for."),
        ("2025-10-01 default\n", "Line 1 of notes.txt must hold one SHA-256 (64 hexadecimal digits)."),
    ],
)
def test_notes_without_a_hash_are_refused(tmp_path, text, sentence):
    (tmp_path / "notes.txt").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_witnesses(["notes.txt"])
    assert str(raised.value) == sentence
