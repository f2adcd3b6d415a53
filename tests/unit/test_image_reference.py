"""How an image is named by others: parts of a registry address, whatever its host, case and shape."""

import pytest

from pipelines.bodies.image_reference import ImageReference, find_addresses, parse_reference

ID = "2d9dd0a5-0a5f-4f3c-8e6a-0c7f0a9d1b11"
DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ID.upper(), ImageReference(image_id=ID)),
        ("org/repo:1.2", ImageReference(None, "org/repo:1.2", "org/repo", "1.2")),
        (
            "swr.example.com/Org/Repo:V1",
            (None, "swr.example.com/Org/Repo:V1", "org/repo", "v1"),
        ),
        ("100.125.3.4:20202/org/a/b:7", (None, "100.125.3.4:20202/org/a/b:7", "org/a/b", "7")),
        ("localhost/org/repo", (None, "localhost/org/repo", "org/repo", "latest")),
        ("org/repo", (None, "org/repo", "org/repo", "latest")),
        (f"swr.x.y/org/repo@{DIGEST.upper()}", (None, f"swr.x.y/org/repo@{DIGEST.upper()}", "org/repo", None, DIGEST)),
        (f"org/repo:7@{DIGEST}", (None, f"org/repo:7@{DIGEST}", "org/repo", "7", DIGEST)),
        ("https://user:pass-word@swr.x.y/org/repo:1?token=abc", (None, "swr.x.y/org/repo:1", "org/repo", "1")),
        ("  docker://swr.x.y/org/repo:1\n", (None, "swr.x.y/org/repo:1", "org/repo", "1")),
    ],
)
def test_parse_reference_takes_an_address_apart(value, expected):
    assert parse_reference(value) == ImageReference(*expected)


@pytest.mark.parametrize("value", [None, "", "   ", 7, [], {}, "/", "user@", "https://"])
def test_parse_reference_of_a_field_that_names_nothing_is_none(value):
    assert parse_reference(value) is None


def test_find_addresses_looks_through_every_value():
    properties = {
        "a": [{"image": "swr.x.y/org/repo:1"}, 3, None],
        "command": f"docker run --rm 100.125.0.1:20202/org/tool:2 and org/other@{DIGEST} http://x/y",
        "obs": "/bucket/path/file.txt",
    }
    assert find_addresses(properties) == [
        "swr.x.y/org/repo:1",
        "100.125.0.1:20202/org/tool:2",
        f"org/other@{DIGEST}",
    ]
