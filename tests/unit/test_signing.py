"""Our signature must equal the vendor's own, for any request."""

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote, urlencode

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.cloud.signing import Authorization, sign_headers, signature

ACCESS_KEY, SECRET_KEY = "AKEXAMPLE", "a-secret"
NOW = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)
DATE = "20261123T040506Z"

# Anything but lone surrogates, which no URL or header can carry.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
HEADER_NAMES = st.from_regex(r"X-[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)
HEADER_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


def vendor_headers(method, host, segments, query, headers, body):
    path = "/" + "/".join(quote(segment, safe="") for segment in segments)
    request = SdkRequest(
        method=method,
        schema="https",
        host=host,
        resource_path=path,
        query_params=list(query),
        header_params={"X-Sdk-Date": DATE, **headers},
        body=body,
    )
    return Signer(BasicCredentials(ACCESS_KEY, SECRET_KEY)).sign(request).header_params


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "get"]),
    host=st.sampled_from(["modelarts.eu-de.otc.t-systems.com", "127.0.0.1:8080"]),
    segments=st.lists(TEXT, min_size=1, max_size=4),
    query=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=4),
    headers=st.dictionaries(HEADER_NAMES, HEADER_VALUES, max_size=4).filter(
        lambda headers: len({name.lower() for name in headers}) == len(headers)
    ),
    body=st.binary(max_size=40),
)
@example("GET", "127.0.0.1:1", ["v1", "p", "images"], [("offset", "0"), ("limit", "200")], {}, b"")
@example("GET", "h", ["v1", "p", "images"], [("name", "a b+c&d=e%20ü"), ("name", "A")], {"X-Project-Id": "p"}, b"")
@example("GET", "h", ["v1"], [], {"X-Project-Id": "p", "X-Security-Token": "gQ+/=token-of-a-temporary-key"}, b"")
@example("POST", "h", ["a/b", "~-._", "%2F", "ü ß"], [("~", "*")], {"X-A": " padded "}, b"\xff\x00")
def test_signature_equals_the_vendors_signer(method, host, segments, query, headers, body):
    url = f"https://{host}/" + "/".join(quote(segment, safe="") for segment in segments)
    if query:
        url += "?" + urlencode(query)
    ours = sign_headers(method, url, headers, body, ACCESS_KEY, SECRET_KEY, NOW)
    theirs = vendor_headers(method, host, segments, query, headers, body)
    assert ours["Authorization"] == theirs["Authorization"]
    assert ours["X-Sdk-Date"] == theirs["X-Sdk-Date"] == DATE
    assert ours["Host"] == theirs["Host"] == host


def test_sign_headers_adds_three_headers_and_signs_the_given_ones():
    added = sign_headers("GET", "https://h/v1/p/images/i", {"X-Project-Id": "p"}, b"", "AK", "SK", NOW)
    assert list(added) == ["Host", "X-Sdk-Date", "Authorization"]
    authorization = Authorization.parse(added["Authorization"])
    assert authorization is not None
    assert authorization.signed_headers == ("host", "x-project-id", "x-sdk-date")
    assert authorization.access_key == "AK"


def test_header_names_with_underscore_are_not_signed():
    plain = sign_headers("GET", "https://h/a", {}, b"", "AK", "SK", NOW)
    assert sign_headers("GET", "https://h/a", {"X_Odd": "1"}, b"", "AK", "SK", NOW) == plain


def test_given_host_header_is_signed():
    added = sign_headers("GET", "https://h:8443/a", {"host": "gateway"}, b"", "AK", "SK", NOW)
    assert added["Host"] == "gateway"
    assert added["Authorization"] == vendor_signed_host("gateway")


def vendor_signed_host(host):
    request = SdkRequest("GET", "https", "h:8443", "/a", None, [], {"X-Sdk-Date": DATE, "host": host}, None)
    return Signer(BasicCredentials("AK", "SK")).sign(request).header_params["Authorization"]


@pytest.mark.parametrize(
    ("url", "like"),
    [("https://h", "https://h/"), ("https://h?a=1", "https://h/?a=1"), ("https://u:p@h/a", "https://h/a"),
     ("https://h/a#part", "https://h/a"), ("https://h/a?b", "https://h/a?b=")],
)  # fmt: skip
def test_equivalent_urls_have_equal_signatures(url, like):
    assert sign_headers("GET", url, {}, b"", "AK", "SK", NOW) == sign_headers("GET", like, {}, b"", "AK", "SK", NOW)


def test_date_is_in_utc():
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert sign_headers("GET", "https://h/", {}, b"", "AK", "SK", elsewhere)["X-Sdk-Date"] == DATE


def test_verifier_recomputes_the_signature_from_the_request():
    added = sign_headers(
        "GET", "http://127.0.0.1:9/v1/p/images?offset=0&limit=2", {"X-Project-Id": "p"}, b"", "AK", "SK", NOW
    )
    authorization = Authorization.parse(added["Authorization"])
    arrived = {"host": "127.0.0.1:9", "x-project-id": "p", "x-sdk-date": DATE}
    pairs = [(name, arrived[name]) for name in authorization.signed_headers]
    again = signature("GET", "/v1/p/images?limit=2&offset=0", pairs, b"", DATE, "SK")
    assert again == authorization.signature
    assert signature("GET", "/v1/p/images?limit=3&offset=0", pairs, b"", DATE, "SK") != again
    assert signature("GET", "/v1/p/images?limit=2&offset=0", pairs, b"", DATE, "sk") != again
    assert signature("GET", "/v1/p/images?limit=2&offset=0", pairs, b"x", DATE, "SK") != again


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic abc",
        "SDK-HMAC-SHA256 Access=A",
        "V11-HMAC-SHA256 Access=A, SignedHeaders=host, Signature=" + "0" * 64,
    ],
)
def test_other_schemes_are_not_parsed(value):
    assert Authorization.parse(value) is None


def test_keys_are_not_shown():
    shown = repr(Authorization("AK-1234", ("host",), "f" * 64))
    assert "AK-1234" not in shown
    assert "ffff" not in shown
