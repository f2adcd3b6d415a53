"""How one stored body becomes a row."""

import hashlib
import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from pipelines.snapshot.normalise import COUNTED_APART, FURTHER, add_counts, normalise_images, to_arrow
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, LIST_FIELDS, RESPONSES

DAY = date(2026, 3, 2)
OBSERVED = datetime(2026, 3, 2, 6, 30, tzinfo=UTC)
ID = "7c1de1f0-2a44-4b0e-9d4d-0f6a3c5b8e21"
OBSERVED_MS = int(OBSERVED.timestamp() * 1000)

# The two forms of bodies that the API sends: sparse, and with every field.
SPARSE = {
    "arch": "x86_64",
    "create_at": 1_700_000_000_123,
    "description": "Sequence models, one GPU",
    "dev_services": ["SSH", "NOTEBOOK"],
    "id": ID,
    "name": "sequence-trainer",
    "resource_categories": ["GPU", "CPU"],
    "service_type": "COMMON",
    "status": "ACTIVE",
    "swr_path": "swr.region-1.example.com/team-a/sequence_trainer:release-4",
    "tag": "release-4",
    "type": "BUILD_IN",
    "update_at": 1_700_000_000_123,
    "workspace_id": "0",
}
FULL = SPARSE | {
    "namespace": "team-a",
    "origin": "CUSTOMIZE",
    "status_message": "",
    "visibility": "PRIVATE",
    "flavor_type": "general",
    "size": 4_096,
    "support_res_categories": ["CPU"],
    "show_name": "Sequence trainer",
    "show_tag": "4",
    "swr_instance_id": "2f0a7c66-91f5-4c0e-a6cf-3d5f2b1d8e40",
    "tags": [{"key": "owner", "value": "ana"}, {"key": "Stage", "value": "prod"}],
}


def responses(*bodies: Any, outcome: str = "ok", id_: str = ID, observed_at: datetime = OBSERVED) -> pa.Table:
    sent = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    rows = [
        {
            "snapshot_date": DAY,
            "project_id": "p1",
            "id": id_,
            "outcome": outcome,
            "attempts": 1,
            "elapsed_ms": 5,
            "observed_at": observed_at,
            "body": body,
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
        for body in sent
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSES.schema)


def row_of(body: Any, **kwargs: Any) -> dict[str, Any]:
    table = to_arrow(normalise_images(responses(body, **kwargs)).images, IMAGES)
    (row,) = table.to_pylist()
    return row


def values_of(body: Any) -> list[tuple[str, int, str]]:
    table = to_arrow(normalise_images(responses(body)).image_values, IMAGE_VALUES)
    return [(row["field"], row["position"], row["value"]) for row in table.to_pylist()]


def tags_of(body: Any) -> dict[str, str | None]:
    table = to_arrow(normalise_images(responses(body)).image_tags, IMAGE_TAGS)
    return {row["key"]: row["value"] for row in table.to_pylist()}


def hash_of(body: Any) -> str:
    return row_of(body)["content_hash"]


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


@pytest.mark.parametrize(
    ("sent", "text", "tags"),
    [
        (None, None, {}),
        ([], "{}", {}),
        (
            [{"key": "b", "value": ""}, {"key": "a", "value": None}, {"key": ""}],
            '{"":null,"a":null,"b":""}',
            {"": None, "a": None, "b": ""},
        ),
        ([{"value": "caf\u00e9|=", "key": "k\n"}], '{"k\\n":"caf\u00e9|="}', {"k\n": "caf\u00e9|="}),
    ],
)
@pytest.mark.parametrize("further", [{}, {"driver": 5}], ids=["plain", "with an unknown field"])
def test_tags_read_as_a_whole_leave_nothing_in_extra(
    sent: Any, text: str | None, tags: dict[str, str | None], further: dict[str, Any]
) -> None:
    body = SPARSE | {"tags": sent} | further
    row = row_of(body)
    assert (row["tags"], row["anomalies"], tags_of(body)) == (text, None, tags)
    assert row["extra"] == ('{"driver":5}' if further else None)


@pytest.mark.parametrize(
    ("sent", "text", "tags", "problems"),
    [
        ("owner=ana", None, {}, ["wrong_type"]),
        ({"owner": "ana"}, None, {}, ["wrong_type"]),
        (
            [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}, {"key": "b", "value": "3"}],
            '{"a":"1","b":"3"}',
            {"a": "1", "b": "3"},
            ["repeated_key"],
        ),
        ([{"key": "a", "value": "1"}, None, "b"], '{"a":"1"}', {"a": "1"}, ["item_not_an_object"]),
        (
            [{"key": 5, "value": "1"}, {"value": "2"}, {"key": "c", "value": "3"}],
            '{"c":"3"}',
            {"c": "3"},
            ["key_not_text"],
        ),
        (
            [{"key": "a", "value": 5}, {"key": "b", "value": ["x"]}],
            '{"a":null,"b":null}',
            {"a": None, "b": None},
            ["value_not_text"],
        ),
        ([{"key": "a", "value": "1", "scope": "all"}], '{"a":"1"}', {"a": "1"}, ["unknown_member"]),
        ([{"key": "\ud83d", "value": "1"}, {"key": "b", "value": "\ud83d"}], '{"b":null}', {"b": None}, ["not_utf8"]),
        (
            [{"key": str(number), "value": "x" * 1000} for number in range(66)],
            None,
            {},
            ["too_long"],
        ),
    ],
)
def test_odd_tags_are_named_and_kept_in_extra(
    sent: Any, text: str | None, tags: dict[str, str | None], problems: list[str]
) -> None:
    body = SPARSE | {"tags": sent}
    row = row_of(body)
    assert (row["tags"], tags_of(body)) == (text, tags)
    named = {f"tags:{problem}" for problem in problems}
    # A text that no column can hold is null in `extra`, too.
    named |= {"extra:not_utf8"} if problems == ["not_utf8"] else set()
    named |= {"extra:too_long"} if problems == ["too_long"] else set()
    assert set(row["anomalies"].split("|")) == named
    assert json.loads(row["extra"]) == {"tags": None if problems == ["too_long"] else sent}
    assert normalise_images(responses(body)).unknown_fields == {}


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


@pytest.mark.parametrize(
    ("sent", "anomalies"),
    [
        ({"id": ID}, None),
        ({"id": f" {ID.upper()} "}, "id:letter_case"),
        ({"id": "8c1de1f0-2a44-4b0e-9d4d-0f6a3c5b8e21"}, "id:differs"),
        ({"id": ""}, "id:differs"),
        ({"id": None}, "id:missing"),
        ({}, "id:missing"),
        ({"id": 5}, "id:differs|id:number_for_text"),
        ({"id": [ID]}, "id:wrong_type"),
        ({"id": "\ud800"}, "id:not_utf8"),
    ],
)
def test_ids_are_normalised(sent: dict[str, Any], anomalies: str | None) -> None:
    row = row_of(sent)
    assert (row["id"], row["anomalies"]) == (ID, anomalies)


def test_requested_id_is_kept_in_lower_case() -> None:
    row = row_of({"id": ID}, id_=ID.upper())
    assert (row["id"], row["anomalies"]) == (ID, None)


@pytest.mark.parametrize(
    ("sent", "kept", "anomalies"),
    [
        ('"release-4"', "release-4", None),
        ('""', "", None),
        ('" Ünicode \\u0000|\\n"', " Ünicode \0|\n", None),
        ("null", None, None),
        ("17", "17", "tag:number_for_text"),
        ("-17", "-17", "tag:number_for_text"),
        ("100000000000000000000000001", "100000000000000000000000001", "tag:number_for_text"),
        ("1.8", None, "tag:wrong_type"),
        ("true", None, "tag:wrong_type"),
        ('["a"]', None, "tag:wrong_type"),
        ('{"a":1}', None, "tag:wrong_type"),
        ("1e999", None, "tag:wrong_type"),
        ("NaN", None, "body:not_a_number|tag:wrong_type"),
        ('"a\\ud800b"', None, "tag:not_utf8"),
        ('"\\ud83d\\ude00"', "😀", None),
    ],
)
def test_text_values_become_text_or_null(sent: str, kept: str | None, anomalies: str | None) -> None:
    row = row_of(f'{{"id":"{ID}","tag":{sent},"name":"n"}}'.encode())
    assert (row["tag"], row["anomalies"], row["name"]) == (kept, anomalies, "n")


def test_bytes_that_are_not_utf8_cost_only_their_field() -> None:
    row = row_of(b'{"id":"%s","description":"caf\xe9","name":"n","size":3}' % ID.encode())
    assert (row["description"], row["name"], row["size"]) == (None, "n", 3)
    assert row["anomalies"] == "description:not_utf8"


def test_byte_order_mark_is_ignored() -> None:
    row = row_of(b"\xef\xbb\xbf" + json.dumps(FULL).encode())
    assert (row["name"], row["anomalies"]) == ("sequence-trainer", "body:byte_order_mark")
    assert row["content_hash"] == hash_of(FULL)


@pytest.mark.parametrize(
    ("sent", "kept", "anomalies"),
    [
        ("0", 0, None),
        ("9007199254740991", 9_007_199_254_740_991, None),
        ("null", None, None),
        ('"4096"', 4_096, "size:number_as_text"),
        ('" 4096 "', 4_096, "size:number_as_text"),
        ('"0"', 0, "size:number_as_text"),
        ("4096.0", 4_096, "size:number_as_float"),
        ("4.096e3", 4_096, "size:number_as_float"),
        ("-1", None, "size:out_of_range"),
        ("9007199254740993", None, "size:out_of_range"),
        ("18446744073709551615", None, "size:out_of_range"),
        ("1" + "0" * 30, None, "size:out_of_range"),
        ('"1' + "0" * 5_000 + '"', None, "size:out_of_range"),
        ("1e300", None, "size:out_of_range"),
        ("-4096.0", None, "size:out_of_range"),
        ("4096.5", None, "size:wrong_type"),
        ('"4 KB"', None, "size:wrong_type"),
        ('"-1"', None, "size:wrong_type"),
        ('""', None, "size:wrong_type"),
        ('"\u0664"', None, "size:wrong_type"),
        ("true", None, "size:wrong_type"),
        ("[4096]", None, "size:wrong_type"),
        ("Infinity", None, "body:not_a_number|size:wrong_type"),
    ],
)
def test_sizes_become_bytes_or_null(sent: str, kept: int | None, anomalies: str | None) -> None:
    row = row_of(f'{{"id":"{ID}","size":{sent}}}'.encode())
    assert (row["size"], row["anomalies"]) == (kept, anomalies)
    assert row["size_bytes"] == (None if kept is None else kept * 1024)


@pytest.mark.parametrize("field", ["create_at", "update_at"])
@pytest.mark.parametrize(
    ("sent", "kept", "problem"),
    [
        (1_700_000_000_123, datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC), None),
        ("1700000000123", datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC), "number_as_text"),
        (1_700_000_000_123.0, datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC), "number_as_float"),
        (946_684_800_000, datetime(2000, 1, 1, tzinfo=UTC), None),
        (946_684_799_999, None, "out_of_range"),
        (OBSERVED_MS + 86_400_000, datetime(2026, 3, 3, 6, 30, tzinfo=UTC), None),
        (OBSERVED_MS + 86_400_001, None, "out_of_range"),
        (0, None, "out_of_range"),
        ("0", None, "out_of_range"),
        (-1, None, "out_of_range"),
        (2**64 - 1, None, "out_of_range"),
        (10**40, None, "out_of_range"),
        (1_700_000_000, None, "out_of_range"),
        ("2023-11-14T22:13:20Z", None, "wrong_type"),
        (1_700_000_000_123.5, None, "wrong_type"),
        (False, None, "wrong_type"),
        ({}, None, "wrong_type"),
        (None, None, None),
    ],
)
def test_timestamps_become_utc_or_null(field: str, sent: Any, kept: datetime | None, problem: str | None) -> None:
    row = row_of({"id": ID, field: sent})
    assert (row[field], row["anomalies"]) == (kept, problem and f"{field}:{problem}")


def test_latest_timestamp_is_in_whole_milliseconds() -> None:
    observed_at = OBSERVED + timedelta(microseconds=1_999)
    row = row_of({"id": ID, "create_at": OBSERVED_MS + 86_400_001, "update_at": "1e3"}, observed_at=observed_at)
    assert (row["observed_at"], row["create_at"]) == (observed_at, OBSERVED + timedelta(days=1, milliseconds=1))
    row = row_of({"id": ID, "create_at": OBSERVED_MS + 86_400_002}, observed_at=observed_at)
    assert (row["create_at"], row["anomalies"]) == (None, "create_at:out_of_range")


@pytest.mark.parametrize(
    ("instant", "days"),
    [
        (datetime(2026, 3, 2, 0, 0, tzinfo=UTC), 0),
        (datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC), 1),
        (datetime(2024, 2, 29, 12, 0, tzinfo=UTC), 732),
        (datetime(2026, 3, 3, 1, 0, tzinfo=UTC), -1),
    ],
)
def test_ages_are_differences_of_utc_dates(instant: datetime, days: int) -> None:
    milliseconds = int(instant.timestamp() * 1000)
    row = row_of({"id": ID, "create_at": milliseconds, "update_at": milliseconds})
    assert (row["age_days"], row["days_since_update"]) == (days, days)


@pytest.mark.parametrize("field", LIST_FIELDS)
@pytest.mark.parametrize(
    ("sent", "flattened", "elements", "problems"),
    [
        ([], "", [], []),
        (None, None, [], []),
        ("GPU", None, [], ["wrong_type"]),
        ({"GPU": 1}, None, [], ["wrong_type"]),
        (0, None, [], ["wrong_type"]),
        (["b", "a", "b"], "a|b", ["b", "a", "b"], ["unknown_value"]),
        (["a|b", "a"], "a|a|b", ["a|b", "a"], ["separator_in_element", "unknown_value"]),
        ([""], "", [""], ["unknown_value"]),
        ([None], "null", ["null"], ["element_not_text", "unknown_value"]),
        ([1, True, 1.0], "1|1.0|true", ["1", "true", "1.0"], ["element_not_text", "unknown_value"]),
        (
            [{"b": 2, "a": [10**30]}],
            '{"a":[1000000000000000000000000000000],"b":2}',
            ['{"a":[1000000000000000000000000000000],"b":2}'],
            ["element_not_text", "unknown_value"],
        ),
        (["\udc80"], '"\\udc80"', ['"\\udc80"'], ["not_utf8", "unknown_value"]),
    ],
)
def test_lists_are_flattened(
    field: str, sent: Any, flattened: str | None, elements: list[str], problems: list[str]
) -> None:
    body = {"id": ID, field: sent}
    row = row_of(body)
    assert row[field] == flattened
    assert row["anomalies"] == ("|".join(f"{field}:{problem}" for problem in problems) or None)
    assert values_of(body) == [(field, position, element) for position, element in enumerate(elements)]


SUPPORTS = ["supports_notebook", "supports_ssh", "supports_cpu", "supports_gpu", "supports_ascend"]


@pytest.mark.parametrize(
    ("sent", "supports"),
    [
        ({}, [None, None, None, None, None]),
        ({"dev_services": []}, [False, False, None, None, None]),
        ({"dev_services": ["notebook"]}, [True, False, None, None, None]),
        ({"dev_services": ["Ssh", "NOTEBOOKS"]}, [False, True, None, None, None]),
        ({"resource_categories": []}, [None, None, False, False, False]),
        ({"resource_categories": ["cpu"]}, [None, None, True, False, False]),
        ({"support_res_categories": ["GPU"]}, [None, None, False, True, False]),
        ({"resource_categories": ["CPU"], "support_res_categories": ["Ascend"]}, [None, None, True, False, True]),
        ({"resource_categories": ["ASCEND910"]}, [None, None, False, False, True]),
        ({"resource_categories": "GPU", "support_res_categories": None}, [None, None, None, None, None]),
    ],
)
def test_supports_columns_follow_the_lists(sent: dict[str, Any], supports: list[bool | None]) -> None:
    row = row_of({"id": ID, **sent})
    assert [row[name] for name in SUPPORTS] == supports


def test_unknown_enumeration_values_are_kept_and_counted() -> None:
    sent = {"id": ID, "arch": "aarch64", "status": "Frozen", "dev_services": ["ssh", "VSCODE", "VSCODE"]}
    normalised = normalise_images(responses(sent, sent, FULL))
    assert list(normalised.images["status"]) == ["Frozen", "Frozen", "ACTIVE"]
    assert list(normalised.images["arch_normalised"]) == ["aarch64", "aarch64", "x86_64"]
    expected = "dev_services:unknown_value|status:unknown_value"
    assert normalised.images["anomalies"].tolist() == [expected, expected, pd.NA]
    assert normalised.unknown_values == {"status=Frozen": 2, "dev_services=VSCODE": 2}
    assert normalised.anomalies == {"dev_services:unknown_value": 2, "status:unknown_value": 2}


@pytest.mark.parametrize(
    ("swr_path", "registry", "repository"),
    [
        ("host.example/team/trainer:1", "host.example", "trainer"),
        ("host.example:5000/team/trainer:1", "host.example:5000", "trainer"),
        ("host.example/team/deep/er/trainer:1", "host.example", "deep/er/trainer"),
        ("host.example/team/trainer", "host.example", "trainer"),
        ("host.example/team/trainer@sha256:0a1b", "host.example", "trainer"),
        ("host.example/team/trainer:1@sha256:0a1b", "host.example", "trainer"),
        ("registry/team/trainer:1", "registry", "trainer"),
        ("host.example/trainer:1", "host.example", "trainer"),
        ("localhost/trainer", "localhost", "trainer"),
        ("team/trainer:1", None, "trainer"),
        ("trainer:1", None, "trainer"),
        ("trainer", None, "trainer"),
        ("/trainer", None, "trainer"),
        ("host.example/team/", "host.example", None),
        (":1", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_swr_path_is_split_into_its_parts(swr_path: str | None, registry: str | None, repository: str | None) -> None:
    row = row_of({"id": ID, "swr_path": swr_path})
    assert (row["swr_path"], row["registry"], row["repository"]) == (swr_path, registry, repository)


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
