"""Properties for any body: no error, no row lost, no field lost, and a hash of the meaning only."""

import json
import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bodies.image import NUMBER_FIELDS, canonical_of_plain, dumps, ordered, read_plain
from pipelines.snapshot.normalise import normalise_images, to_arrow
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, LIST_FIELDS, RESPONSES, TAGS

ID = "7c1de1f0-2a44-4b0e-9d4d-0f6a3c5b8e21"
DAY_US = 1_772_433_000_000_000
LATEST_MS = DAY_US // 1000 + 86_400_000
API_FIELDS = [column.name for column in IMAGES.columns if column.origin == "api"]
DERIVED = [column.name for column in IMAGES.columns if column.origin in {"derived", "provenance"}]


def as_read(value: Any) -> Any:
    """The value as a JSON reader sees it: two adjacent surrogates are one character."""
    return json.loads(json.dumps(value))


# Every code point, including lone surrogates: json.dumps writes them as the escapes that a sender may write.
texts = st.text(st.characters(exclude_categories=()), max_size=6)
numbers = st.integers() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
).map(as_read)
likely = st.sampled_from(["ACTIVE", "x86_64", "host/team/repo:1", "4096", " 7 ", "", ID, ID.upper()]) | st.sampled_from(
    [
        4096.0,
        0,
        -1,
        2**53,
        1_700_000_000_000,
        2**64 - 1,
        1e13,
        [],
        ["GPU", "CPU"],
        ["SSH", "SSH"],
        ["a|b"],
        [None],
        [["GPU"]],
        [{"key": "owner", "value": "ana"}, {"key": "a"}],
        [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}],
        [{"key": "a", "value": 1}, {"key": 1}, {"key": "b", "value": None, "more": []}],
    ]
)
keys = st.sampled_from(["id", *API_FIELDS]) | st.sampled_from([*DERIVED, "project_id"]) | texts
objects = st.dictionaries(keys, likely | anything, max_size=12).map(as_read)


def responses(bodies: list[bytes]) -> pa.Table:
    rows = [
        {
            "snapshot_date": 20_514,
            "project_id": "p1",
            "id": ID,
            "outcome": "ok",
            "attempts": 1,
            "elapsed_ms": 5,
            "observed_at": DAY_US,
            "body": body,
            "body_sha256": "0" * 64,
        }
        for body in bodies
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSES.schema)


def normalised(bodies: list[bytes]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    result = normalise_images(responses(bodies))
    images, values = to_arrow(result.images, IMAGES), to_arrow(result.image_values, IMAGE_VALUES)
    tags = to_arrow(result.image_tags, IMAGE_TAGS)
    tags.validate(full=True)
    expected = [json.loads(text) for text in images[TAGS].to_pylist() if text is not None]
    assert [(row["key"], row["value"]) for row in tags.to_pylist()] == [
        pair for of_row in expected for pair in sorted(of_row.items())
    ]
    images.validate(full=True)
    values.validate(full=True)
    assert images.schema.equals(IMAGES.schema, check_metadata=True)
    assert values.schema.equals(IMAGE_VALUES.schema, check_metadata=True)
    assert images.num_rows == len(bodies)
    return images.to_pylist(), values.to_pylist()


def same(a: Any, b: Any) -> bool:
    """Equality that distinguishes 1, 1.0 and true, which Python's does not."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def assert_nothing_lost(sent: dict[str, Any], row: dict[str, Any], values: list[dict[str, Any]]) -> None:
    anomalies = set((row["anomalies"] or "").split("|"))
    extra = json.loads(row["extra"]) if row["extra"] is not None else {}
    for field, value in sent.items():
        if field == "id":
            told = {"id:missing", "id:letter_case", "id:differs", "id:wrong_type", "id:not_utf8"}
            assert value == row["id"] or anomalies & told
        elif field not in API_FIELDS:
            assert same(extra.pop(field), value)
        elif field == TAGS and TAGS in extra:
            assert any(anomaly.startswith("tags:") for anomaly in anomalies)
            assert same(extra.pop(TAGS), value)
        elif value is None:
            assert row[field] is None
        elif field == TAGS:
            kept = [{"key": key, "value": told} for key, told in json.loads(row[TAGS]).items()]
            sent_tags = [{"key": tag["key"], "value": tag.get("value")} for tag in value]
            assert kept == sorted(sent_tags, key=lambda tag: tag["key"])
        elif row[field] is None:
            assert anomalies & {f"{field}:{problem}" for problem in ("wrong_type", "out_of_range", "not_utf8")}
        elif field in LIST_FIELDS:
            elements = [entry["value"] for entry in values if entry["field"] == field]
            assert len(elements) == len(value)
            for element, kept in zip(value, elements, strict=True):
                assert element == kept or same(json.loads(kept), element)
            assert row[field] == "|".join(sorted(set(elements)))
        elif field in {"create_at", "update_at"}:
            assert row[field].timestamp() * 1000 == float(value)
        elif field == "size":
            assert row["size"] == int(value)
            assert row["size_bytes"] == row["size"] * 1024
        else:
            assert row[field] == value or (row[field] == str(value) and f"{field}:number_for_text" in anomalies)
    assert not extra
    assert ("id:missing" in anomalies) == (sent.get("id") is None)


@settings(max_examples=80, deadline=None)
@given(st.lists(objects, max_size=5))
def test_no_field_is_lost(sent: list[dict[str, Any]]) -> None:
    images, values = normalised([json.dumps(body).encode() for body in sent])
    start = 0
    for body, row in zip(sent, images, strict=True):
        lists = [body[field] for field in LIST_FIELDS if isinstance(body.get(field), list)]
        length = sum(map(len, lists))
        assert_nothing_lost(body, row, values[start : start + length])
        start += length
    assert start == len(values)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode()), max_size=6))
def test_any_body_gives_one_row(bodies: list[bytes]) -> None:
    normalised(bodies)


@settings(max_examples=60, deadline=None)
@given(objects.map(lambda body: json.dumps(body, ensure_ascii=False)), st.data())
def test_damaged_body_gives_one_row(text: str, data: st.DataObject) -> None:
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    normalised([bytes(body[: data.draw(st.integers(0, len(body)))]), bytes(body)])


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        members = [(key, shuffled(child, order)) for key, child in value.items()]
        order.shuffle(members)
        return dict(members)
    if isinstance(value, list):
        elements = [shuffled(child, order) for child in value]
        order.shuffle(elements)
        return elements
    return value


@settings(max_examples=60, deadline=None)
@given(objects, st.randoms(use_true_random=False), st.sampled_from([None, 2]))
def test_content_hash_does_not_depend_on_order(body: Any, order: random.Random, indent: int | None) -> None:
    other = json.dumps(shuffled(body, order), indent=indent).encode()
    images, _ = normalised([json.dumps(body).encode(), other, json.dumps(body, ensure_ascii=True).encode()])
    assert len({row["content_hash"] for row in images}) == 1


@settings(max_examples=60, deadline=None)
@given(objects, keys.map(as_read), anything)
def test_content_hash_changes_with_a_value(body: dict[str, Any], key: str, value: Any) -> None:
    images, _ = normalised([json.dumps(body).encode(), json.dumps(body | {key: value}).encode()])
    unchanged = key in body and same(ordered(body[key]), ordered(value))
    assert (images[0]["content_hash"] == images[1]["content_hash"]) == unchanged


plain_texts = st.none() | st.text(max_size=5)
instants = st.none() | st.sampled_from([946_684_800_000, 1_700_000_000_000, LATEST_MS, LATEST_MS + 1, 2**53 - 1])
plain_tags = st.fixed_dictionaries(
    {"key": st.sampled_from("ab") | st.text(max_size=3)}, optional={"value": plain_texts}
)
plain_objects = st.fixed_dictionaries(
    {"id": st.sampled_from([ID, ID, ID.upper(), f" {ID}", ""])},
    optional={
        **dict.fromkeys(("tag", "arch", "swr_path", "description"), plain_texts),
        "status": st.sampled_from(["ACTIVE", "active", "Frozen", None]),
        "size": st.none() | st.integers(0, 2**53 - 1),
        **dict.fromkeys(("create_at", "update_at"), instants),
        **{field: st.none() | st.lists(st.sampled_from("aB|é") | st.text(max_size=3)) for field in LIST_FIELDS},
        TAGS: st.none() | st.lists(plain_tags, max_size=3),
    },
)
twice = st.sampled_from(
    ['"tag":3', '"tag":"x"', '"id":null', '"size":-0', '"size":00', '"create_at":1e2', '"\\u0069d":""']
)


@st.composite
def bodies_as_sent(draw: st.DrawFn) -> bytes:
    """Usually a plain body in some layout; otherwise with odd values, a repeated key, or a bad byte."""
    kind = draw(st.integers(0, 7))
    sent = draw(plain_objects) | (draw(objects) if kind == 0 else {})
    text = json.dumps(sent, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    if kind == 1:
        text = f"{{{draw(twice)},{text[1:-1]},{draw(twice)}}}"
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    if kind == 2:
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@settings(max_examples=100, deadline=None)
@given(st.lists(bodies_as_sent(), max_size=4))
def test_plain_and_any_reading_give_equal_values(bodies: list[bytes]) -> None:
    sent = responses(bodies)
    by_either_way = normalise_images(sent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.snapshot.normalise.read_plain", lambda content: None)
        by_one_way = normalise_images(sent)
    for name, table in (("images", IMAGES), ("image_values", IMAGE_VALUES), ("image_tags", IMAGE_TAGS)):
        assert to_arrow(getattr(by_either_way, name), table).equals(to_arrow(getattr(by_one_way, name), table))
    for name in ("unknown_fields", "unknown_values", "anomalies"):
        assert getattr(by_either_way, name) == getattr(by_one_way, name)


@pytest.mark.parametrize(
    "body",
    [
        {"id": ID},
        {"id": "", "tag": None, "size": None, "dev_services": None},
        {"update_at": LATEST_MS + 1, "size": 0, "id": ID, "dev_services": [], "resource_categories": ["b", "\u00e9"]},
        dict.fromkeys(API_FIELDS, "x")
        | {field: ["x"] for field in LIST_FIELDS}
        | {TAGS: [{"key": "a", "value": "x"}, {"key": "b"}, {"value": None, "key": "c"}]}
        | dict.fromkeys(NUMBER_FIELDS, 2**40),
    ],
)
def test_documented_body_is_read_as_plain(body: dict[str, Any]) -> None:
    sent = {"id": ID} | body
    plain = read_plain(json.dumps(sent, indent=1).encode())
    assert json.loads(canonical_of_plain(plain)) == sent


@pytest.mark.parametrize(
    "change", [{"id": None}, {"size": 1.0}, {"size": -1}, {"tag": 5}, {"new": 1}, {"name": "\udc80"}]
)
def test_odd_body_is_not_read_as_plain(change: dict[str, Any]) -> None:
    assert read_plain(json.dumps({"id": ID} | change).encode()) is None


@settings(max_examples=60, deadline=None)
@given(anything)
def test_canonical_json_reads_back_equal(value: Any) -> None:
    assert same(json.loads(dumps(value)), value)
