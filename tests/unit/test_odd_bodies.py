"""One odd value costs only that value: all readers of a body agree, and none gives up the image or the list."""

import datetime as dt
import itertools
import json
import sqlite3
from contextlib import closing

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bodies.image import read_any, read_plain
from pipelines.bodies.json_text import MAX_TEXT_BYTES, NotJSONError, parse
from pipelines.cloud.classification import Kind, classify, classify_list
from pipelines.cloud.credentials import PasswordLogin
from pipelines.cloud.identity import read_token
from pipelines.cloud.paging import IMAGES as IMAGE_LIST
from pipelines.cloud.paging import Paging
from pipelines.derive.analysis import _any_items, _ids, _listed, _plain_items
from pipelines.snapshot.image_list import ImageList, confirms
from pipelines.snapshot.normalise import normalise_images
from pipelines.snapshot.sources import resources
from pipelines.tables import RESPONSES, Outcome

ID = "0e1f2a3b-4c5d-6e7f-8091-a2b3c4d5e6f7"
NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
LATEST_MS = 2**53
DEEP = b"[" * 5_000 + b"]" * 5_000


def described(value: bytes, field: bytes = b"description") -> bytes:
    return b'{"id":"%s","name":"n",%s:%s}' % (ID.encode(), json.dumps(field.decode()).encode(), value)


# The value sent, its text as a column, its text in `extra` if the field is unknown, and the anomalies of each. None:
# not kept. `responses` has the bytes in any case.
ODD = {
    "half a character": (b'"cut off \\ud83d"', None, '"cut off \\ud83d"', "not_utf8", "extra:not_utf8"),
    "the other half": (b'"\\ude00"', None, '"\\ude00"', "not_utf8", "extra:not_utf8"),
    "a byte that is not UTF-8": (b'"caf\xe9"', None, '"caf\\udce9"', "not_utf8", "extra:not_utf8"),
    "NaN": (b"NaN", None, '"NaN"', "wrong_type body:not_a_number", "body:not_a_number"),
    "minus infinity": (b"-Infinity", None, '"-Infinity"', "wrong_type body:not_a_number", "body:not_a_number"),
    "beyond 64 bits": (b"1" + b"0" * 20, "1" + "0" * 20, "1" + "0" * 20, "number_for_text", "extra:out_of_range"),
    "400 digits": (b"7" * 400, "7" * 400, "7" * 400, "number_for_text", "extra:out_of_range"),
    "5,000 digits": (b"7" * 5_000, None, "7" * 5_000, "wrong_type", "extra:out_of_range"),
    "beyond a double": (b"1e400", None, "1e400", "wrong_type", "extra:out_of_range"),
    "a tab": (b'"a\tb"', "a\tb", '"a\\tb"', "body:control_character", "body:control_character"),
    "an escape character": (b'"a\x1bb"', "a\x1bb", '"a\\u001bb"', "body:control_character", "body:control_character"),
}  # fmt: skip


def anomalies_of(words: str, field: str) -> set[str]:
    return {word if ":" in word else f"{field}:{word}" for word in words.split()}


@pytest.mark.parametrize(("value", "column", "extra", "named", "named_extra"), ODD.values(), ids=ODD)
def test_odd_value_costs_only_that_value(value, column, extra, named, named_extra):
    known, unknown = described(value), described(value, b"new")
    for body in (known, unknown):
        assert classify(ID, 200, {}, body).outcome is Outcome.OK
    reading = read_any(known, LATEST_MS)
    assert (reading.values["name"], reading.values["description"]) == ("n", column)
    assert reading.anomalies == anomalies_of(named, "description")
    reading = read_any(unknown, LATEST_MS)
    assert (reading.values["name"], reading.extra) == ("n", f'{{"new":{extra}}}')
    assert reading.anomalies == anomalies_of(named_extra, "new")


@pytest.mark.parametrize(("value", "column", "extra", "named", "named_extra"), ODD.values(), ids=ODD)
def test_odd_value_in_the_list_does_not_stop_any_reader(value, column, extra, named, named_extra):
    other = ID.replace("0", "1")
    page = b'{"data":[%s,{"id":"%s"}],"total":2}' % (described(value, b"name"), other.encode())
    assert classify_list(200, {}, page).outcome is Outcome.OK
    read = Paging(IMAGE_LIST, "/images").take(page, NOW)
    assert [item["id"] for item in read.items] == [ID, other]
    assert _plain_items(page) in (None, _any_items(page))
    assert _ids(page) == [ID, other]
    listed = _listed([page], itertools.count()).to_pylist()
    assert [(row["id"], row["position"]) for row in listed] == [(ID, 0), (other, 1)]
    assert listed[0]["name"] is None or listed[0]["name"] == column
    with closing(sqlite3.connect(":memory:")) as database:
        images = ImageList(database)
        images.index(1, page)
        found = {id_: item for id_, _, item in images.find([ID, other])}
    assert found.keys() == {ID, other}
    # An equal value on both sides confirms; a different one does not.
    assert confirms(found[ID], described(value, b"name"))
    assert not confirms(found[ID], described(b'"another"', b"name"))
    notebook = resources.described("notebook", read.items[0], NOW)
    assert notebook.name is None or notebook.name.encode()


WHOLE = {
    "a byte order mark": (b"\xef\xbb\xbf" + described(b'"d"'), {"body:byte_order_mark"}),
    "UTF-16": (described(b'"d"').decode().encode("utf-16"), {"body:not_utf8"}),
    "UTF-16 without a mark": (described(b'"d"').decode().encode("utf-16-le"), {"body:not_utf8"}),
    "UTF-32": (described(b'"d"').decode().encode("utf-32"), {"body:not_utf8"}),
    "white space around": (b"\r\n " + described(b'"d"') + b"\n", set()),
    "a key twice": (described(b'"first"')[:-1] + b',"description":"d"}', set()),
    "an id twice": (b'{"id":"x",' + described(b'"d"')[1:], set()),
    "a deep field": (described(b'"d"')[:-1] + b',"deep":' + DEEP + b"}", {"body:nested_too_deeply"}),
    "a deep field with odd text": (
        described(b'"d"')[:-1] + b',"deep":{"]":' + DEEP + b',"\\"[":"\\ud83d"}}',
        {"body:nested_too_deeply", "extra:not_utf8"},
    ),
}


@pytest.mark.parametrize(("body", "anomalies"), WHOLE.values(), ids=WHOLE)
def test_body_in_an_odd_encoding_is_read_completely(body, anomalies):
    assert classify(ID, 200, {}, body).outcome is Outcome.OK
    reading = read_any(body, LATEST_MS)
    assert (reading.values["id"], reading.values["description"]) == (ID, "d")
    assert reading.anomalies == anomalies
    plain = read_plain(body)
    assert plain is None or (plain.id, plain.description) == (ID, "d")
    assert confirms({"id": ID, **parse(body)}, body)


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \n",
    "a mark alone": b"\xef\xbb\xbf",
    "HTML": b"<html></html>",
    "cut off": described(b'"d"')[:-1],
    "cut off in UTF-16": described(b'"d"').decode().encode("utf-16-le")[:-1],
    "two of them": described(b'"d"') * 2,
    "single quotes": b"{'id': 'x'}",
    "a comma too many": b'{"id": "x",}',
    "a comment": b'{} // "',
    "a number with a plus": b'{"size": +1}',
    "undefined": b'{"size": undefined}',
    "deep and cut off": b'{"deep":' + DEEP[:-1] + b"}",
    "deep without end": b"[" * 100_000,
    # A parser that looks at each escaped quote as another beginning would need days for these.
    "deep and a string without end": b"[" * 101 + b'"' + b'\\"' * 500_000,
    "deep and a string that ends within an escape": b"[" * 101 + b'"' + b'\\"' * 500_000 + b"\\",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_invalid_json_is_refused_by_every_reader(body):
    assert (v := classify(ID, 200, {}, body)).kind is Kind.RETRY and v.error_code == "client.not_json"  # noqa: PT018
    assert classify_list(200, {}, body).error_code == "client.not_a_page"
    assert read_any(body, LATEST_MS).anomalies == {"body:not_an_object"}
    assert read_plain(body) is None
    assert not confirms({"id": ID}, body)
    with pytest.raises(NotJSONError) as raised, closing(sqlite3.connect(":memory:")) as database:
        ImageList(database).index(1, body)
    # The parser's own error holds the document, which may hold a token.
    assert raised.value.__context__ is None


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b""], ids=["with a mark", "without"])
@pytest.mark.parametrize("message", [b"caf\xe9", b"\\ud83d", b"a\tb"], ids=["latin", "half a character", "tab"])
def test_error_in_an_odd_encoding_is_still_that_error(prefix, message):
    body = prefix + b'{"error_code":"ModelArts.6404","error_msg":"gone %s"}' % message
    for status in (200, 400, 404):
        verdict = classify(ID, status, {}, body)
        assert (verdict.outcome, verdict.error_code) == (Outcome.NOT_FOUND, "ModelArts.6404")
        # Text that SQLite, Arrow and terminals accept.
        assert verdict.error_msg.startswith("gone ") and verdict.error_msg.encode()  # noqa: PT018


@pytest.mark.parametrize("code", [b'"\\ud83d"', b"NaN", b"1e999", b"9" * 5_000, b'["\\ud83d"]'])
def test_any_error_code_becomes_storable_text(code):
    verdict = classify(ID, 200, {}, b'{"error_code":%s}' % code)
    assert verdict.outcome is Outcome.FAILED
    assert 0 < len(verdict.error_code.encode()) <= 500


def test_odd_name_in_a_login_response_does_not_cost_the_token():
    login = PasswordLogin("https://iam.invalid/v3", "u", True, "secret", None, "p1", None, None)
    body = b'\xef\xbb\xbf{"token":{"user":{"name":"caf\xe9 \\ud83d"},"n":NaN,"project":{"id":"p1"}}}'
    token = read_token(login, "iam.invalid", {"X-Subject-Token": "t"}, body)
    assert (token.value, token.project_id) == ("t", "p1")


@pytest.mark.parametrize(
    ("sent", "total"),
    [
        (b"2", 2),
        (b'" 2 "', 2),
        (b"-1", None),
        (b"true", None),
        (b"NaN", None),
        (b"9" * 5_000, None),
        (b'"' + b"9" * 5_000 + b'"', None),
        (b'"\xd9\xa4"', None),
    ],
)
def test_nonsense_total_is_ignored(sent, total):
    paging = Paging(IMAGE_LIST, "/images")
    paging.take(b'{"data":[{"id":"%s"}],"total":%s}' % (ID.encode(), sent), NOW)
    assert paging.total == total
    assert not paging.is_whole


@pytest.mark.parametrize(
    ("item", "is_plain"),
    [
        (b'"id":" AB-1 ","name":"n","size":3,"visibility":null,"new":[{"a":[1e400]}]', True),
        (b'"id":"b","size":"7","type":"x","size":"8"', True),
        (b'"id":"c","size":7.0', False),
        (b'"id":"d","name":5', False),
        (b'"id":" ","name":"n"', False),
        (b'"id":"e","namespace":"%s"' % (b"x" * MAX_TEXT_BYTES), False),
        (b'"name":"n"', False),
    ],
)
def test_documented_page_gives_the_same_as_the_general_parser(item, is_plain):
    page = b'{"total":2,"data":[{%s},{"id":"z"}]}' % item
    plain = _plain_items(page)
    assert (plain is not None) == is_plain
    assert plain in (None, _any_items(page))
    assert _ids(page) == [id_ for id_, *_ in _any_items(page)]


def test_item_with_an_unstorable_id_is_counted():
    long = b"x" * (MAX_TEXT_BYTES + 1)
    page = b'{"data":[{"id":"\\ud83d"},{"id":"%s"},{"id":" "},{"id":"%s"}]}' % (long, ID.encode())
    paging = Paging(IMAGE_LIST, "/images")
    assert [item["id"] for item in paging.take(page, NOW).items] == [ID]
    assert paging.skipped == 3
    assert _listed([page], itertools.count()).num_rows == 1


# -- values longer than a column may be

LONGEST = b"x" * MAX_TEXT_BYTES


def responses(*bodies: bytes) -> pa.Table:
    row = {"snapshot_date": NOW.date(), "project_id": "p", "id": ID, "outcome": "ok", "attempts": 1, "elapsed_ms": 1}
    rows = [row | {"observed_at": NOW, "body": body, "body_sha256": "0"} for body in bodies]
    return pa.Table.from_pylist(rows, RESPONSES.schema)


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("description", b'"%s"' % LONGEST, LONGEST.decode()),
        ("description", b'"%sx"' % LONGEST, None),
        ("description", b'"%s"' % (b"\xe2\x82\xac" * (MAX_TEXT_BYTES // 3 + 1)), None),
        ("description", b'"\\ud83d%s"' % LONGEST, None),
        ("size", b'"%s1"' % (b"0" * MAX_TEXT_BYTES), 1),
        ("dev_services", b'["%s"]' % LONGEST, LONGEST.decode()),
        ("dev_services", b'["%s","b"]' % LONGEST, None),
        ("dev_services", b"[%s]" % b",".join([b'""'] * MAX_TEXT_BYTES), None),
        ("new", b'"%s"' % LONGEST, '{"other":1}'),
    ],
)
def test_too_long_value_is_null_and_reported(field, value, kept):
    body = described(value, field.encode())
    if field == "new":
        body = body[:-1] + b',"other":1}'
        kept = '{"new":null,"other":1}'
    frames = normalise_images(responses(body, described(b'"d"')))
    first, second = frames.images.to_dict("records")
    column = "extra" if field == "new" else field
    assert ((first[column] or None) if first[column] == first[column] else None) == kept
    assert (first["name"], second["name"], second["description"]) == ("n", "n", "d")
    named = {name for name in frames.anomalies if name.endswith(":too_long")}
    assert named == (set() if field == "size" or kept == LONGEST.decode() else {f"{column}:too_long"})
    assert len(frames.image_values) == (1 if kept and field == "dev_services" else 0)


def test_too_long_unknown_fields_are_null_and_counted():
    many = b",".join(b'"f%d":%d' % (number, number) for number in range(10_000))
    frames = normalise_images(responses(b'{"id":"%s",%s}' % (ID.encode(), many)))
    assert frames.images["extra"].isna().all()
    assert frames.anomalies == {"extra:too_long": 1}
    assert frames.unknown_fields.total() == 10_000


# -- any bytes

texts = st.text(st.characters(exclude_categories=()), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def nearly_json(draw: st.DrawFn) -> bytes:
    """An image with odd values, in any encoding, with a byte or two changed."""
    sent = {"id": ID, "status": draw(st.sampled_from(["ACTIVE", "DELETED", None]))} | draw(
        st.dictionaries(st.sampled_from(["description", "size", "error_code"]) | texts, values, max_size=4)
    )
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"]))
    text = json.dumps(sent, ensure_ascii=draw(st.booleans()))
    body = bytearray(text.encode(encoding, "surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@settings(max_examples=150, deadline=None)
@given(nearly_json() | st.binary(max_size=30))
def test_one_parser_classifies_and_reads_a_body(body):
    verdict, reading = classify(ID, 200, {}, body), read_any(body, LATEST_MS)
    is_object = "body:not_an_object" not in reading.anomalies
    assert (verdict.error_code in ("client.not_json", "client.not_object")) is not is_object
    if verdict.outcome in (Outcome.OK, Outcome.DELETED) and verdict.error_code is None:
        assert reading.values["id"].strip().lower() == ID
        assert confirms(parse(body), body)
    for text in (verdict.error_code, verdict.error_msg, reading.extra):
        assert text is None or text.encode() is not None
    # Every body that the fast parser accepts is accepted, with the same values.
    try:
        fast = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    if isinstance(fast, dict):
        assert reading.values.keys() <= fast.keys()
        assert parse(body).keys() == fast.keys()


@pytest.mark.parametrize(("elements", "is_sorted"), [(65_536, True), (65_537, False)])
def test_very_long_list_is_hashed_in_its_own_order(elements, is_sorted):
    body = b'{"id":"%s","new":[1%s]}' % (ID.encode(), b",0" * (elements - 1))
    reading = read_any(body, LATEST_MS)
    assert (b'"new":[0' in reading.canonical) is is_sorted
    assert reading.anomalies == {"extra:too_long"}
