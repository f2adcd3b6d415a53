"""Reads the registry address in an image's body, whatever the body holds."""

import json

import pytest

from pipelines.snapshot.sources.registry_bodies import repository_named


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("swr.eu-de.example.com/team/base:v1", ("team", "base")),
        ("registry:5000/team/tools/base@sha256:0", ("team", "tools/base")),
        ("team/base:v1", ("team", "base")),
        ("localhost/team/base", ("localhost", "team/base")),
        ("a.b.c:1/team/base", ("team", "base")),
        ("base", None),
        ("", None),
        # Patterns that try each dot as the end of the host would need days for these.
        ("." * 1_000_000, None),
        (".:" * 500_000 + "/", None),
        ("." * 1_000_000 + "/team/base", ("team", "base")),
    ],
    ids=lambda value: None if value is None else str(value)[:40],
)
def test_repository_is_found_in_a_body(address, named):
    assert repository_named(json.dumps({"id": "x", "swr_path": address}).encode()) == named


def test_preset_image_names_no_repository():
    body = json.dumps({"swr_path": "swr.example/team/base:v1", "type": "build_in"}).encode()
    assert repository_named(body) is None
