"""What each value of a body becomes: texts, tags, sizes, times, lists and paths."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from normalised_bodies import FULL, ID, OBSERVED, OBSERVED_MS, SPARSE, hash_of, responses, row_of, tags_of, values_of

from pipelines.snapshot.normalise import normalise_images
from pipelines.tables import LIST_FIELDS


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
