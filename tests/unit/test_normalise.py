"""How one stored body becomes a row."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from normalised_bodies import (
    DAY,
    FULL,
    ID,
    OBSERVED,
    SPARSE,
    hash_of,
    responses,
    row_of,
    values_of,
)

from pipelines.snapshot.normalise import COUNTED_APART, FURTHER, add_counts, normalise_images, to_arrow
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, RESPONSES


def test_full_body_fills_all_columns() -> None:
    body = json.dumps(FULL).encode()
    canonical = (
        '{"arch":"x86_64","create_at":1700000000123,"description":"Sequence models, one GPU",'
        '"dev_services":["NOTEBOOK","SSH"],"flavor_type":"general","id":"7c1de1f0-2a44-4b0e-9d4d-0f6a3c5b8e21",'
        '"name":"sequence-trainer","namespace":"team-a","origin":"CUSTOMIZE","resource_categories":["CPU","GPU"],'
        '"service_type":"COMMON","show_name":"Sequence trainer","show_tag":"4","size":4096,"status":"ACTIVE",'
        '"status_message":"","support_res_categories":["CPU"],"swr_instance_id":"2f0a7c66-91f5-4c0e-a6cf-3d5f2b1d8e40",'
        '"swr_path":"swr.region-1.example.com/team-a/sequence_trainer:release-4","tag":"release-4",'
        '"tags":[{"key":"Stage","value":"prod"},{"key":"owner","value":"ana"}],"type":"BUILD_IN",'
        '"update_at":1700000000123,"visibility":"PRIVATE","workspace_id":"0"}'
    )
    created = datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
    assert row_of(body) == {
        "snapshot_date": DAY,
        "project_id": "p1",
        "id": ID,
        "name": "sequence-trainer",
        "namespace": "team-a",
        "swr_path": "swr.region-1.example.com/team-a/sequence_trainer:release-4",
        "tag": "release-4",
        "arch": "x86_64",
        "type": "BUILD_IN",
        "origin": "CUSTOMIZE",
        "service_type": "COMMON",
        "status": "ACTIVE",
        "status_message": "",
        "visibility": "PRIVATE",
        "workspace_id": "0",
        "flavor_type": "general",
        "description": "Sequence models, one GPU",
        "size": 4_096,
        "create_at": created,
        "update_at": created,
        "dev_services": "NOTEBOOK|SSH",
        "resource_categories": "CPU|GPU",
        "support_res_categories": "CPU",
        "show_name": "Sequence trainer",
        "show_tag": "4",
        "swr_instance_id": "2f0a7c66-91f5-4c0e-a6cf-3d5f2b1d8e40",
        "tags": '{"Stage":"prod","owner":"ana"}',
        "size_bytes": 4_194_304,
        "supports_notebook": True,
        "supports_ssh": True,
        "supports_cpu": True,
        "supports_gpu": True,
        "supports_ascend": False,
        "arch_normalised": "x86_64",
        "registry": "swr.region-1.example.com",
        "repository": "sequence_trainer",
        "age_days": 839,
        "days_since_update": 839,
        "observed_at": OBSERVED,
        "response_sha256": hashlib.sha256(body).hexdigest(),
        "content_hash": hashlib.sha256(canonical.encode()).hexdigest(),
        "extra": None,
        "anomalies": None,
    }


def test_absent_fields_stay_null() -> None:
    row = row_of(SPARSE)
    absent = ["namespace", "origin", "status_message", "visibility", "flavor_type", "size", "size_bytes"]
    absent += ["support_res_categories", "show_name", "show_tag", "swr_instance_id", "tags"]
    assert [row[field] for field in absent] == [None] * 12
    assert row["supports_gpu"] is True
    assert row["anomalies"] is None


def test_body_with_only_an_id_is_a_row() -> None:
    row = row_of({"id": ID})
    kept = {"snapshot_date", "project_id", "id", "observed_at", "response_sha256", "content_hash"}
    assert {name for name, value in row.items() if value is not None} == kept


def test_image_values_keep_order_and_repetition() -> None:
    body = FULL | {"dev_services": ["SSH", "NOTEBOOK", "SSH"], "resource_categories": []}
    assert values_of(body) == [
        ("dev_services", 0, "SSH"),
        ("dev_services", 1, "NOTEBOOK"),
        ("dev_services", 2, "SSH"),
        ("support_res_categories", 0, "CPU"),
    ]
    row = row_of(body)
    assert (row["dev_services"], row["resource_categories"]) == ("NOTEBOOK|SSH", "")


def test_image_values_follow_the_rows() -> None:
    table = pa.concat_tables([responses({"dev_services": ["SSH"]}, id_="b"), responses(FULL, id_="a")])
    values = normalise_images(table).image_values
    assert list(values["id"]) == ["b", *["a"] * 5]
    assert list(values["field"]) == ["dev_services"] * 3 + ["resource_categories"] * 2 + ["support_res_categories"]
    assert set(values["snapshot_date"]) == {DAY}
    assert set(values["project_id"]) == {"p1"}


def test_image_tags_follow_the_rows_and_lie_by_key() -> None:
    table = pa.concat_tables([responses({"tags": [{"key": "z"}]}, id_="b"), responses(FULL, id_="a")])
    tags = to_arrow(normalise_images(table).image_tags, IMAGE_TAGS).to_pylist()
    shared = {"snapshot_date": DAY, "project_id": "p1"}
    assert tags == [
        shared | {"id": "b", "key": "z", "value": None},
        shared | {"id": "a", "key": "Stage", "value": "prod"},
        shared | {"id": "a", "key": "owner", "value": "ana"},
    ]


def test_content_hash_does_not_depend_on_the_order_of_tags() -> None:
    tags = [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}, {"key": "c"}]
    hashes = {hash_of(FULL | {"tags": sent}) for sent in (tags, tags[::-1])}
    hashes |= {hash_of(FULL | {"tags": [dict(reversed(tag.items())) for tag in tags]})}
    assert len(hashes) == 1
    assert hash_of(FULL | {"tags": [*tags[:2], {"key": "c", "value": None}]}) not in hashes


def test_only_ok_and_described_images_become_rows() -> None:
    outcomes = ["ok", "not_found", "deleted", "forbidden", "failed", "invalid_id"]
    table = pa.concat_tables([responses(FULL, outcome=outcome, id_=outcome) for outcome in outcomes])
    assert list(normalise_images(table).images["id"]) == ["ok", "deleted"]


def test_requested_id_is_kept_in_lower_case() -> None:
    row = row_of({"id": ID}, id_=ID.upper())
    assert (row["id"], row["anomalies"]) == (ID, None)


@pytest.mark.parametrize(
    ("sent", "extra", "anomalies"),
    [
        (b'{"z":1,"labels":[{"b":2,"a":"x"},3]}', '{"labels":[{"a":"x","b":2},3],"z":1}', None),
        (b'{"n":null,"size_bytes":7,"anomalies":"mine"}', '{"anomalies":"mine","n":null,"size_bytes":7}', None),
        (b'{"n":[123456789012345678901234567890,-9223372036854775809]}', None, "extra:out_of_range"),
        (b'{"n":18446744073709551615,"o":-9223372036854775808}', None, None),
        (b'{"n":"\\ud800","\\udfff":"\xff"}', '{"n":"\\ud800","\\udfff":"\\udcff"}', "extra:not_utf8"),
        (b'{"n":1e400,"m":[1.50,1E2]}', '{"m":[1.5,100.0],"n":1e400}', "extra:out_of_range"),
        (b'{"n":' + b"9" * 5_000 + b"}", None, "extra:out_of_range"),
        (b'{"Name":"x"}', None, None),
    ],
)
def test_unknown_fields_become_extra(sent: bytes, extra: str | None, anomalies: str | None) -> None:
    row = row_of(b'{"id":"%s",' % ID.encode() + sent[1:])
    assert row["extra"] == (extra or sent.decode())
    assert (row["size_bytes"], row["anomalies"]) == (None, anomalies)


def test_extra_writes_numbers_beyond_json_as_text() -> None:
    row = row_of(b'{"id":"%s","n":[NaN,-Infinity]}' % ID.encode())
    assert (row["extra"], row["anomalies"]) == ('{"n":["NaN","-Infinity"]}', "body:not_a_number")


def test_unknown_fields_are_counted() -> None:
    bodies = [{"id": ID, "driver": 1}, {"id": ID, "driver": 2, "\udc80": 0}]
    assert normalise_images(responses(*bodies)).unknown_fields == {"driver": 2, "\\udc80": 1}


def test_counted_names_are_bounded() -> None:
    bodies = [{"id": ID, f"field_{number}": 1, "status": f"S{number}"} for number in range(COUNTED_APART + 5)]
    normalised = normalise_images(responses(*bodies))
    for counter in (normalised.unknown_fields, normalised.unknown_values):
        assert len(counter) == COUNTED_APART + 1
        assert counter[FURTHER] == 5
    total = Counter(normalised.unknown_fields)
    add_counts(total, {"field_0": 2, "one more": 3})
    assert (total["field_0"], total[FURTHER], len(total)) == (3, 8, COUNTED_APART + 1)


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"5", b'"text"', b"[]", b'{"id":', b"\xff\xfe", b"\0" * 9])
def test_body_that_is_not_an_object_keeps_its_row(body: bytes) -> None:
    row = row_of(body)
    kept = {"snapshot_date", "project_id", "id", "observed_at", "response_sha256", "content_hash", "anomalies"}
    assert {name for name, value in row.items() if value is not None} == kept
    assert row["anomalies"] == "body:not_an_object"
    assert row["content_hash"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("depth", [101, 300, 1_030, 30_000])
def test_too_deep_nesting_is_kept_as_text(depth: int) -> None:
    row = row_of(f'{{"id":"{ID}","name":"n","n":{"[" * (depth - 1)}{"]" * (depth - 1)}}}'.encode())
    deepest = "[" * (depth - 100) + "]" * (depth - 100)
    assert row["extra"] == f'{{"n":{"[" * 99}"{deepest}"{"]" * 99}}}'
    assert (row["name"], row["anomalies"]) == ("n", "body:nested_too_deeply")


def test_deepest_readable_nesting_is_kept() -> None:
    nested = "[" * 99 + "]" * 99
    row = row_of(f'{{"id":"{ID}","n":{nested}}}'.encode())
    assert (row["extra"], row["anomalies"]) == (f'{{"n":{nested}}}', None)


def test_content_hash_ignores_order_and_white_space() -> None:
    body = FULL | {"labels": [{"k": 1, "v": [2, 1]}, "b", "a"]}
    shuffled = dict(reversed(body.items())) | {"labels": ["a", {"v": [1, 2], "k": 1}, "b"]}
    shuffled |= {"resource_categories": ["CPU", "GPU"], "dev_services": ["NOTEBOOK", "SSH"]}
    assert hash_of(json.dumps(shuffled, indent=3).encode()) == hash_of(body)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 4_097},
        {"size": "4096"},
        {"size": 4_096.0},
        {"tag": None},
        {"dev_services": ["SSH", "SSH", "NOTEBOOK"]},
        {"dev_services": "SSH"},
        {"new": None},
        {"id": ID.upper()},
    ],
)
def test_content_hash_changes_with_the_content(change: dict[str, Any]) -> None:
    assert hash_of(FULL | change) != hash_of(FULL)


def test_content_hash_sorts_elements_by_their_json() -> None:
    canonical = f'{{"dev_services":["a!","a",1,null],"id":"{ID}"}}'
    assert hash_of({"id": ID, "dev_services": [None, 1, "a", "a!"]}) == hashlib.sha256(canonical.encode()).hexdigest()


def test_bad_row_does_not_affect_its_neighbours() -> None:
    bad = FULL | {"size": "x", "name": 5, "dev_services": [[1]], "create_at": {}, "driver": 10**40}
    alone = row_of(FULL)
    rows = to_arrow(normalise_images(responses(FULL, bad, b"[", FULL, SPARSE, FULL)).images, IMAGES).to_pylist()
    assert [rows[index] for index in (0, 3, 5)] == [alone] * 3
    assert rows[4] == row_of(SPARSE)
    assert rows[1] == row_of(bad)


def test_chunk_size_does_not_change_the_frames() -> None:
    table = responses(FULL, SPARSE, b"5", FULL | {"x": [2, 1]}, SPARSE | {"dev_services": [3]}, FULL)
    whole = normalise_images(table)
    parts = [normalise_images(table.slice(start, 2)) for start in (0, 2, 4)]
    for name, columns in (("images", IMAGES), ("image_values", IMAGE_VALUES), ("image_tags", IMAGE_TAGS)):
        joined = pa.concat_tables([to_arrow(getattr(part, name), columns) for part in parts])
        assert joined.equals(to_arrow(getattr(whole, name), columns))
    assert sum((part.anomalies for part in parts), Counter()) == whole.anomalies


def test_record_batch_without_rows_is_accepted() -> None:
    (batch,) = responses(FULL).to_batches()
    assert to_arrow(normalise_images(batch).images, IMAGES).to_pylist() == [row_of(FULL)]
    empty = normalise_images(RESPONSES.schema.empty_table())
    assert to_arrow(empty.images, IMAGES).equals(IMAGES.schema.empty_table())
    assert to_arrow(empty.image_values, IMAGE_VALUES).equals(IMAGE_VALUES.schema.empty_table())
    assert to_arrow(empty.image_tags, IMAGE_TAGS).equals(IMAGE_TAGS.schema.empty_table())


def test_frames_are_arrow_backed_in_column_order() -> None:
    normalised = normalise_images(responses(FULL))
    for frame, table in (
        (normalised.images, IMAGES),
        (normalised.image_values, IMAGE_VALUES),
        (normalised.image_tags, IMAGE_TAGS),
    ):
        assert list(frame.columns) == table.schema.names
        assert [dtype.pyarrow_dtype for dtype in frame.dtypes] == table.schema.types
        assert to_arrow(frame, table).schema.equals(table.schema, check_metadata=True)


def test_a_null_in_a_required_column_is_refused() -> None:
    frame = normalise_images(responses(FULL)).images
    frame.loc[0, "content_hash"] = None
    with pytest.raises(ValueError, match="content_hash"):
        to_arrow(frame, IMAGES)
