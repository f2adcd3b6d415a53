"""Which image a reference means: case by case, whatever its shape."""

import pytest
from published_days import day_of, publish_snapshot

from pipelines.bodies.image_reference import parse_reference
from pipelines.derive.analysis import Analysis
from pipelines.engine.sql_files import read_sql

HOST = "swr.eu-de.example.com"
DIGEST = "sha256:" + "ab" * 32
# Id -> registry address, as the API states it, and its host.
IMAGES = {
    "one": (f"{HOST}/Team/Trainer:1.0", HOST),
    "two": (f"{HOST}/team/trainer:2.0", HOST),
    "twin": ("100.125.0.9:20202/team/trainer:2.0", "100.125.0.9:20202"),
    "untagged": (f"{HOST}/team/base", HOST),
    "latest": (f"{HOST}/team/tool:latest", HOST),
    "by-digest": (f"{HOST}/team/pinned@{DIGEST}", HOST),
    "deep": (f"{HOST}/team/a/b:7", HOST),
    "no-host": ("team/x/plain:3", "team"),
    "no-address": (None, None),
}
CASES = {
    "by id": ({"image_id": "no-address"}, {"no-address"}),
    "an id, whatever the address says": ({"image_id": "one", "image_reference": "team/trainer:2.0"}, {"one"}),
    "by path without a host": ("team/trainer:1.0", {"one"}),
    "by path with its host": (f"{HOST}/team/trainer:1.0", {"one"}),
    "through an internal host": ("100.125.3.4:20202/team/trainer:1.0", {"one"}),
    "in upper case": (f"{HOST.upper()}/TEAM/TRAINER:1.0", {"one"}),
    "two images of one path": ("team/trainer:2.0", {"two", "twin"}),
    "a tag that moved away": ("team/trainer:0.9", set()),
    "no tag is latest": ("team/tool", {"latest"}),
    "latest is no tag": ("team/base:latest", {"untagged"}),
    "another tag than latest": ("team/base:1", set()),
    "a digest of a repository of three": (f"team/trainer@{DIGEST}", {"one", "two", "twin"}),
    "a digest beside a tag": (f"{HOST}/team/trainer:1.0@{DIGEST}", {"one"}),
    "an image that states a digest alone": ("team/pinned:5", {"by-digest"}),
    "a repository in a directory": (f"{HOST}/team/a/b:7", {"deep"}),
    "an image without a host": ("team/x/plain:3", {"no-host"}),
    "an unknown id and a known path": ({"image_id": "gone", "image_reference": "team/trainer:1.0"}, {"one"}),
    "an unknown id": ({"image_id": "gone"}, set()),
    "an unknown path": ("team/other:1.0", set()),
    "the repository of another namespace": ("trainer:1.0", set()),
    "nothing": ({}, set()),
}


def reference(number: int, stated: str | dict) -> dict:
    row = {"image_reference": stated} if isinstance(stated, str) else dict(stated)
    if parsed := parse_reference(row.get("image_reference")):
        row |= {"image_path": parsed.path, "image_tag": parsed.tag, "image_digest": parsed.digest}
    return row | {"resource_id": f"r{number:02}"}


@pytest.fixture(scope="module")
def matched(tmp_path_factory):
    """For each reference, the images that it means, and by what."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("references"))
        day = day_of("2026-11-23")
        publish_snapshot(
            day,
            inventory=[{"id": id_} for id_ in sorted(IMAGES)],
            responses=[{"id": id_, "outcome": "ok"} for id_ in sorted(IMAGES)],
            images=[{"id": id_, "swr_path": path, "registry": host} for id_, (path, host) in sorted(IMAGES.items())],
            references=[reference(number, stated) for number, (stated, _) in enumerate(CASES.values())],
        )
        with Analysis(day) as analysis:
            rows = analysis.engine.read(read_sql("derive/referenced_images.sql")).to_pylist()
    found = {name: [] for name in CASES}
    for row in rows:
        found[[*CASES][int(row["resource_id"][1:])]].append((row["id"], row["matched_by"]))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_reference_means_the_images_of_its_id_or_else_of_its_address(matched, name):
    _, expected = CASES[name]
    assert {id_ for id_, _ in matched[name]} == (expected or {None})
    # Once each.
    assert len(matched[name]) == max(len(expected), 1)


def test_a_match_says_whether_it_is_by_id_or_by_path(matched):
    assert matched["an id, whatever the address says"] == [("one", "id")]
    assert matched["an unknown id and a known path"] == [("one", "path")]
    assert matched["nothing"] == [(None, None)]
