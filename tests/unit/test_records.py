"""One reader with one policy for damage, and one writer, for all kinds of records."""

import hashlib
import importlib
import pkgutil

import pytest

import pipelines
from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import DerivedManifest
from pipelines.lake.failures import Failure
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import Attempt, Manifest
from pipelines.lake.monthly_manifests import MonthlyManifest
from pipelines.lake.records import Facts, Record, is_whole, read_record, write_record
from pipelines.lake.retention_records import RetentionRecord


class Note(Record):
    text: str


@pytest.fixture
def path(tmp_path):
    return Lake(str(tmp_path)).root / "record.json"


DAMAGE = [b"", b"no JSON", b"[]", b"{}", b'{"unknown": 1}', b"\xff"]


@pytest.mark.parametrize("content", DAMAGE)
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Manifest, r"^The manifest {path} is damaged \(.+: .+\): restore the file from a backup\.$"),
        (RetentionRecord, r"^The retention record {path} is damaged \(.+: .+\), so it is not known which files were"),
        (Attempt, r"^{path} is damaged or of another version of this software \(.+: .+\): run with --fresh to start"),
    ],
)
def test_damaged_evidence_is_an_error_that_names_file_and_field(path, kind, sentence, content):
    path.write_whole(content)
    with pytest.raises(StorageError, match=sentence.format(path=path)):
        read_record(kind, path)


def test_error_names_the_damaged_field_without_its_value(path):
    path.write_whole(b'{"run_id": {"secret": 1}, "started_at": "2026-11-23T12:00:00Z"}')
    with pytest.raises(StorageError, match=r"\(run_id: Input should be a valid string\)"):
        read_record(Attempt, path)


@pytest.mark.parametrize("content", DAMAGE)
@pytest.mark.parametrize("kind", [DerivedManifest, MonthlyManifest, Failure])
def test_damaged_record_that_can_be_made_again_is_none(path, kind, content):
    path.write_whole(content)
    assert read_record(kind, path) is None


@pytest.mark.parametrize("kind", [Manifest, RetentionRecord, Attempt, DerivedManifest, MonthlyManifest, Failure])
def test_missing_record_is_none_and_broken_link_is_an_error(path, kind):
    assert read_record(kind, path) is None
    path.symlink_to(path.parent / "gone.json")
    with pytest.raises(StorageError, match="the link is broken"):
        read_record(kind, path)


def test_written_record_states_its_own_sha256_and_the_replaced_one_is_kept(path):
    superseded = path.parent / "superseded"
    write_record(path, Note(text='"content_sha256": "' + "1" * 64), superseded)
    first = path.read_bytes()
    assert is_whole(first)
    assert not superseded.exists()
    write_record(path, Note(text="second"), superseded)
    assert read_record(Note, path).text == "second"
    (kept,) = superseded.iterdir()
    assert (kept.name, kept.read_bytes()) == (f"{hashlib.sha256(first).hexdigest()}.json", first)


def kinds_of_facts(kind=Facts):
    return {kind}.union(*map(kinds_of_facts, kind.__subclasses__()))


def test_times_of_all_records_have_a_zone():
    """Times with and without a zone cannot be compared, so one such time would end every command with a traceback."""
    # Modules that define records, even if no test has imported them yet.
    for module in pkgutil.walk_packages(pipelines.__path__, "pipelines."):
        if module.name.startswith(("pipelines.lake.", "pipelines.notify.", "pipelines.maintenance.")):
            importlib.import_module(module.name)
    times = {
        (kind.__name__, name): str(field.annotation)
        for kind in kinds_of_facts()
        if kind.__module__.startswith("pipelines.")
        for name, field in kind.model_fields.items()
    }
    assert ("Manifest", "published_at") in times
    assert {place: kind for place, kind in times.items() if "datetime.datetime" in kind} == {}
