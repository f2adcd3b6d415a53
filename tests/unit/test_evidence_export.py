"""The export of evidence on one image: complete, proved by a script of the standard library, silent on other images."""

import datetime as dt
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from fortnight import DAYS, LAST_DAY
from published_days import day_of, publish_snapshot

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.query.evidence_export import export_evidence

ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


def check(place, *arguments):
    """What the exported script says, run by an interpreter without any installed package."""
    script = place / "check.py" if place.is_dir() else place.parent / "check.py"
    return subprocess.run(
        [sys.executable, "-I", "-S", str(script), *([] if place.is_dir() else [str(place)]), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def image_id(fortnight):
    """An image that has a response on every day of the fortnight, and whose content changes."""
    changed = [
        row["id"]
        for path in sorted(fortnight.glob("image_changes/dt=*/project=default/*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
        if row["field"] == "visibility"
    ]
    return changed[0]


@pytest.fixture(scope="module")
def exported(fortnight, image_id, tmp_path_factory):
    """The unpacked export of the whole fortnight; tests that change it copy it."""
    root = tmp_path_factory.mktemp("export")
    export_evidence(Lake(str(fortnight)), "default", image_id, None, None, root / "export.zip")
    with zipfile.ZipFile(root / "export.zip") as archive:
        archive.extractall(root / "unpacked")
    return root


def files_of(exported):
    place = exported / "unpacked"
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def published(path, image_id=None):
    rows = pq.ParquetFile(path).read().to_pylist()
    return [row for row in rows if image_id in (None, row["id"])]


def test_export_has_each_day_s_body_byte_for_byte_and_the_rows_that_follow(exported, fortnight, image_id):
    files = files_of(exported)
    days = json.loads(files["export.json"])["days"]
    assert [day["day"] for day in days] == [str(day) for day in DAYS]
    for day in DAYS:
        (row,) = published(fortnight / f"responses/dt={day}/project=default/responses.parquet", image_id)
        assert files[f"days/{day}/body"] == row["body"]
        response = json.loads(files[f"days/{day}/response.json"])["row"]
        assert response["body_sha256"] == hashlib.sha256(row["body"]).hexdigest()
        assert response["outcome"] == row["outcome"]
        rows = json.loads(files[f"days/{day}/rows.json"])
        (image,) = published(fortnight / f"images/dt={day}/project=default/images.parquet", image_id)
        assert (rows["images"][0]["visibility"], rows["images"][0]["name"]) == (image["visibility"], image["name"])
        assert {row["id"] for of_table in rows.values() for row in of_table} == {image_id}


def test_script_of_the_standard_library_proves_directory_and_zip(exported, fortnight, image_id):
    manifest = fortnight / f"_manifests/dt={LAST_DAY}/project=default.json"
    newest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    in_directory = check(exported / "unpacked", "--witness", newest)
    assert (in_directory.returncode, in_directory.stderr) == (0, "")
    lines = in_directory.stdout.splitlines()
    assert lines[0] == f"Image {image_id} of the project default"
    assert lines[1].startswith("Sample data: ")
    assert [line.split(":")[0] for line in lines[2:16]] == [str(day) for day in DAYS]
    assert lines[16:] == [f"Newest manifest: SHA-256 {newest}", "All responses are proved."]
    (exported / "check.py").write_bytes((exported / "unpacked/check.py").read_bytes())
    assert check(exported / "export.zip").stdout == in_directory.stdout
    missing = check(exported / "unpacked", "--witness", "0" * 64)
    assert missing.returncode == 1
    assert missing.stderr == f"No manifest of this chain has the SHA-256 {'0' * 64}.\n"


@pytest.fixture(scope="module")
def checking(exported):
    """The exported script as a module, so that many changed exports are checked in one process."""
    namespace = {"__name__": "check", "__file__": ""}
    exec(compile((exported / "unpacked/check.py").read_text(), "check.py", "exec"), namespace)
    return namespace


def problems_of(checking, files, *witnesses):
    return checking["_check"](files.__getitem__, sorted(files), list(witnesses))


def with_sums(files):
    """The files with a new SHA256SUMS, as somebody writes it who wants to deceive."""
    rest = {name: content for name, content in files.items() if name != "SHA256SUMS"}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in rest.items())
    return rest | {"SHA256SUMS": sums.encode()}


def test_flipped_byte_of_any_file_is_named(exported, checking, capsys):
    files = files_of(exported)
    assert problems_of(checking, files) == []
    for name, content in files.items():
        flipped = bytearray(content)
        flipped[len(flipped) // 2] ^= 1
        problems = problems_of(checking, files | {name: bytes(flipped)})
        # A flip in the sums changes a file's name or its hash, or makes them unreadable.
        expected = f"{name}: it was changed" if name != "SHA256SUMS" else ""
        assert any(problem.startswith(expected) for problem in problems), (name, problems)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("days/2026-11-12/body", lambda c: c + b" ", "days/2026-11-12/body: it does not have the SHA-256"),
        (
            "days/2026-11-12/response.json",
            lambda c: c.replace(b'"outcome": "ok"', b'"outcome": "deleted"'),
            "days/2026-11-12/response.json: it does not lead to the root",
        ),
        ("manifests/000003.json", lambda c: c + b" ", "manifests/000004.json: it does not follow"),
    ],
)
def test_forgery_with_correct_sums_is_named(exported, checking, capsys, name, change, sentence):
    files = files_of(exported)
    forged = with_sums(files | {name: change(files[name])})
    assert forged[name] != files[name]
    assert any(problem.startswith(sentence) for problem in problems_of(checking, forged))
    capsys.readouterr()


def in_json(files, name, change):
    """The files with a changed JSON file, and with correct sums."""
    value = json.loads(files[name])
    change(value)
    return with_sums(files | {name: json.dumps(value).encode()})


def with_own_manifest(files, name):
    """The files with another body on the fourth day, and a manifest `name` that states it."""
    body = b"{}"
    response = json.loads(files["days/2026-11-13/response.json"])
    response["row"]["body_sha256"], response["path"] = hashlib.sha256(body).hexdigest(), []
    row = response["row"]
    leaf = "\n".join((row["outcome"], str(response["observed_at_us"]), row["body_sha256"], row["id"]))
    manifest = json.loads(files["manifests/000004.json"])
    manifest["responses_root"] = hashlib.sha256(b"\0" + leaf.encode()).hexdigest()
    manifest["previous_manifest_sha256"] = hashlib.sha256(files["manifests/000014.json"]).hexdigest()
    files = files | {
        name: json.dumps(manifest).encode(),
        "days/2026-11-13/body": body,
        "days/2026-11-13/response.json": json.dumps(response).encode(),
    }
    return in_json(files, "export.json", lambda export: export["days"][3].update(manifest=name))


def test_response_that_rests_on_no_manifest_of_the_chain_is_named(exported, checking, capsys):
    forged = with_own_manifest(files_of(exported), "other/000004.json")
    assert problems_of(checking, forged) == [
        "other/000004.json: it belongs to no day of export.json.",
        "other/000004.json: it is not the newest manifest of 2026-11-13 in the chain.",
    ]
    assert "2026-11-13: not proved" in capsys.readouterr().out.splitlines()


def test_witness_proves_no_manifest_that_follows_it(exported, checking, capsys):
    forged = with_own_manifest(files_of(exported), "manifests/000015.json")
    assert problems_of(checking, forged) == []
    witness = hashlib.sha256(forged["manifests/000014.json"]).hexdigest()
    assert problems_of(checking, forged, witness) == [
        "manifests/000015.json: it follows the witness, which does not prove it."
    ]
    capsys.readouterr()


def test_day_that_is_left_out_and_days_that_are_exchanged_are_named(exported, checking, capsys):
    files = files_of(exported)
    left_out = {name: content for name, content in files.items() if not name.startswith("days/2026-11-13/")}
    left_out = in_json(left_out, "export.json", lambda export: export["days"].pop(3))
    assert problems_of(checking, left_out) == [
        "manifests/000004.json: it is of 2026-11-13, a day that export.json leaves out."
    ]
    one, two = "days/2026-11-13/response.json", "days/2026-11-14/response.json"
    problems = problems_of(checking, with_sums(files | {one: files[two], two: files[one]}))
    assert f"{one}: it is of another image or day." in problems
    assert f"{two}: it is of another image or day." in problems
    capsys.readouterr()


def test_file_that_belongs_to_no_listed_day_is_named(exported, checking, capsys):
    added = with_sums(files_of(exported) | {"days/2026-12-24/body": b"{}"})
    assert problems_of(checking, added) == ["days/2026-12-24/body: it belongs to no day of export.json."]
    capsys.readouterr()


def test_words_of_a_forged_export_never_look_like_a_proof(exported, checking, capsys):
    files = files_of(exported)
    name = "days/2026-11-13/response.json"
    later = in_json(files, name, lambda response: response["row"].update(observed_at="2027-01-01T00:00:00+00:00"))
    assert problems_of(checking, later) == [f"{name}: its row states another time than the one that is proved."]
    assert "2027-01-01" not in capsys.readouterr().out
    claim = {"response": None, "reason": "ok, 2027-01-01T00:00:00+00:00\x1b[2K, 120 bytes"}
    rest = {name: content for name, content in files.items() if not name.startswith("days/2026-11-13/")}
    claimed = in_json(rest, "export.json", lambda export: export["days"][3].update(claim))
    assert problems_of(checking, claimed) == []
    line = "2026-11-13: nothing is proved: ok, 2027-01-01T00:00:00+00:00\\x1b[2K, 120 bytes"
    assert line in capsys.readouterr().out.splitlines()


def test_file_that_is_twice_in_the_zip_is_named(exported, checking, tmp_path, capsys):
    twice = tmp_path / "export.zip"
    twice.write_bytes((exported / "export.zip").read_bytes())
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("export.json", archive.read("export.json"))
    assert checking["check"](twice, []) == 1
    assert capsys.readouterr().err == "export.json: it is there more than once.\n"


def test_damaged_zip_is_never_proved_and_never_a_traceback(exported, checking, tmp_path, capsys):
    content = (exported / "export.zip").read_bytes()
    damaged = tmp_path / "export.zip"
    flips = [content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :] for at in range(7, len(content), 2999)]
    for changed in [*flips, content[: len(content) // 2], b""]:
        damaged.write_bytes(changed)
        status = checking["check"](damaged, [])
        printed = capsys.readouterr()
        # Some bytes of a ZIP file, such as those of times, have no meaning for what is in it.
        assert (status, printed.out.splitlines()[-1]) in ((1, "NOT PROVED"), (0, "All responses are proved."))
        assert bool(printed.err) == bool(status)
        if changed not in flips:
            assert status == 1


def test_export_shows_no_other_image(exported, fortnight, image_id):
    others = {
        row["id"]
        for day in DAYS
        for row in published(fortnight / f"responses/dt={day}/project=default/responses.parquet")
    } - {image_id}
    text = b"\n".join(files_of(exported).values()).decode()
    assert [id_ for id_ in others if id_ in text] == []


def test_same_evidence_gives_the_same_bytes(exported, fortnight, image_id, tmp_path):
    export_evidence(Lake(str(fortnight)), "default", image_id, None, None, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (exported / "export.zip").read_bytes()


def publish(number, *outcomes, run_id="run-1", hour=12):
    """Publish a day of a lake in the working directory; `outcomes` are those of the images ONE and TWO."""
    day = replace(day_of(f"2026-11-{number:02}"), run_id=run_id)
    ids = dict(zip((ONE, TWO), outcomes, strict=False))
    body = b'{"id": "x"}'
    digest = hashlib.sha256(body).hexdigest()
    publish_snapshot(
        day,
        inventory=[{"id": id_} for id_ in ids],
        responses=[
            {"id": id_, "outcome": outcome, "body": None if outcome == "failed" else body}
            | {"body_sha256": None if outcome == "failed" else digest}
            for id_, outcome in ids.items()
        ],
        images=[{"id": id_} for id_, outcome in ids.items() if outcome == "ok"],
        hour=hour,
    )
    return day.lake


def unpacked(path):
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_days_without_a_response_say_why_and_failed_ones_are_proved_without_a_body(checking, tmp_path, capsys):
    publish(1, "ok")
    publish(2, "ok", "failed")
    lake = publish(3, "ok", "ok")
    lake.table("responses", Partition(dt.date(2026, 11, 3), "default")).unlink()
    done = export_evidence(lake, "default", TWO, None, None, tmp_path / "two.zip")
    assert (done.days, done.proved, done.manifests) == (3, 1, 2)
    files = unpacked(tmp_path / "two.zip")
    assert problems_of(checking, files) == []
    assert [line.partition(": ")[2].split(",")[0] for line in capsys.readouterr().out.splitlines()[2:5]] == [
        "nothing is proved: not requested",
        "failed",
        "nothing is proved: not known",
    ]
    assert "days/2026-11-02/body" not in files


def test_rerun_day_is_proved_by_its_last_manifest_and_the_chain_keeps_the_replaced_one(checking, tmp_path, capsys):
    publish(1, "ok")
    publish(2, "ok")
    lake = publish(2, "deleted", run_id="run-2", hour=13)
    done = export_evidence(lake, "default", ONE, None, None, tmp_path / "one.zip")
    assert done.manifests == 3
    files = unpacked(tmp_path / "one.zip")
    assert problems_of(checking, files) == []
    assert [day["manifest"] for day in json.loads(files["export.json"])["days"]] == [
        "manifests/000001.json",
        "manifests/000003.json",
    ]
    older = in_json(files, "export.json", lambda export: export["days"][1].update(manifest="manifests/000002.json"))
    assert problems_of(checking, older) == [
        "manifests/000002.json: it is not the newest manifest of 2026-11-02 in the chain."
    ]
    capsys.readouterr()


def test_period_limits_the_days_and_the_chain_still_reaches_the_newest_manifest(tmp_path):
    for number in (1, 2, 3):
        lake = publish(number, "ok")
    done = export_evidence(lake, "default", ONE, dt.date(2026, 11, 2), dt.date(2026, 11, 2), tmp_path / "one.zip")
    assert (done.days, done.proved, done.manifests) == (1, 1, 2)
    assert done.newest_manifest_sha256 == lake.manifest(Partition(dt.date(2026, 11, 3), "default")).sha256()


def test_unknown_image_broken_chain_and_unwritable_file_are_one_sentence(tmp_path):
    publish(1, "ok")
    publish(2, "ok")
    lake = publish(3, "ok")
    with pytest.raises(ConfigurationError, match="No response of the image nobody is stored in the project default"):
        export_evidence(lake, "default", "nobody", None, None, tmp_path / "a.zip")
    with pytest.raises(ConfigurationError, match=r"a\.zip cannot be written: there is no directory .*missing"):
        export_evidence(lake, "default", ONE, None, None, tmp_path / "missing" / "a.zip")
    lake.manifest(Partition(dt.date(2026, 11, 2), "default")).unlink()
    with pytest.raises(StorageError, match="The chain of manifests of the project default is broken"):
        export_evidence(lake, "default", ONE, None, None, tmp_path / "a.zip")
    assert list(tmp_path.glob("*.zip")) == []


def test_command_exports_and_names_what_is_wrong(image_snapshots, fortnight, image_id, tmp_path):
    env = {"IMAGE_SNAPSHOTS_LAKE": str(fortnight)}
    done = image_snapshots(
        "evidence", "--image", image_id.upper(), "--from", str(DAYS[2]), "--output", "a.zip", "--json", env=env
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) | {"newest_manifest_sha256": ""} == {
        "output": "a.zip",
        "project": "default",
        "days": 12,
        "proved": 12,
        "newest_manifest_sha256": "",
    }
    assert (tmp_path / "a.zip").exists()
    for arguments, sentence in (
        (("--from", "2026-11-12", "--to", "2026-11-11"), "--to 2026-11-11 is before --from 2026-11-12"),
        (("--project", "other"), "--project other has no days"),
        (("--from", "12.11."), "12.11. is not a date"),
        (("--output", str(fortnight / "a.zip")), "is inside the lake"),
    ):
        options = {"--image": image_id, "--output": "b.zip"} | dict(zip(arguments[::2], arguments[1::2], strict=True))
        done = image_snapshots("evidence", *[text for pair in options.items() for text in pair], env=env)
        assert done.returncode == 2
        assert sentence in done.stderr
    assert not (tmp_path / "b.zip").exists()
