"""An image's owner, cost centre and environment: from the inventory, or from a cloud tag where that states none."""

import json

import pytest
from proved_days import A, proved_day, publish_proved
from published_days import day_of, publish_snapshot, published_rows

from pipelines.derive.days import derive_days, derived_inputs
from pipelines.errors import ConfigurationError
from pipelines.query.views import connect_lake
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import AUDIT_FINDINGS, IMAGE_CHANGES, IMAGE_COSTS, IMAGE_RECONCILIATION

OWNERS = ("owner", "cost_center", "environment")


def publish(date, tags, inventory=(), outcomes=(), settings=None, **given):
    """Publish and derive a day of images by id, each with its tags; one with another outcome has no response."""
    day = day_of(date)
    if settings:
        day = SnapshotRun(day.partition, day.run_id, Settings(lake="lake", **settings))
    outcomes = dict(outcomes)
    described = {id_: said for id_, said in tags.items() if outcomes.get(id_, "ok") in ("ok", "deleted")}
    publish_snapshot(
        day,
        images=[
            {
                "id": id_,
                "name": id_,
                "namespace": "team",
                "tags": json.dumps(said, sort_keys=True) if said is not None else None,
                "content_hash": json.dumps(said),
            }
            for id_, said in described.items()
        ],
        image_tags=[
            {"id": id_, "key": key, "value": said[key]} for id_, said in described.items() for key in sorted(said or {})
        ],
        responses=[{"id": id_, "outcome": outcomes.get(id_, "ok")} for id_ in sorted({*tags, *outcomes})],
        inventory=[{"id": id_, **dict(zip(OWNERS, said, strict=False))} for id_, said in dict(inventory).items()],
        **given,
    )
    derive_days(day)
    return day


def owners(day):
    """Id -> owner, cost centre, environment and where the owner comes from."""
    return {
        row["id"]: (*(row[name] for name in OWNERS), row["owner_source"]) for row in published_rows(day, IMAGE_COSTS)
    }


def test_tags_fill_in_what_the_inventory_does_not_state(tmp_path):
    day = publish(
        "2026-11-01",
        {
            "a": {"owner": "tag-a", "cost_center": "9", "environment": "prod"},
            "b": {"owner": "tag-b"},
            "c": {"Owner": "tag-c", "team": "x"},
            "d": {"OWNER": " ", "owner": "tag-d", "Environment": "test"},
            "e": {"owner": "", "cost_center": None},
            "f": None,
        },
        {"a": ("ann", None, " "), "b": ("bob", "1", "dev"), "d": (), "f": ("fay",)},
    )
    assert owners(day) == {
        "a": ("ann", "9", "prod", "inventory"),
        "b": ("bob", "1", "dev", "inventory"),
        "c": ("tag-c", None, None, "tag"),
        "d": ("tag-d", None, "test", "tag"),
        "e": (None, None, None, "none"),
        "f": ("fay", None, None, "inventory"),
    }
    missing = [row["id"] for row in published_rows(day, AUDIT_FINDINGS) if row["rule"] == "owner_missing"]
    assert missing == ["d", "f"]
    with connect_lake(day.lake) as connection:
        shown = connection.sql(
            "SELECT id, owner, cost_center, environment FROM images_with_owner ORDER BY id"
        ).fetchall()
    assert shown == [(id_, *said[:3]) for id_, said in owners(day).items()]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"owner": "team", "cost_center": "team"}, ("blue", "blue", None, "tag")),
        ({"environment": "STAGE"}, (None, None, "prod", "none")),
        ({}, (None, None, None, "none")),
    ],
)
def test_setting_chooses_the_keys(keys, expected, tmp_path):
    tags = {"a": {"owner": "ann", "Team": "blue", "stage": "prod"}}
    assert owners(publish("2026-11-01", tags, settings={"tag_keys": keys})) == {"a": expected}


def test_image_without_a_response_keeps_the_tags_of_its_last_version(tmp_path):
    tags = {"a": {"owner": "ann"}, "b": {"owner": "bob"}, "c": {"owner": "cleo"}, "d": {"owner": "dan"}}
    first = publish("2026-11-01", tags)
    assert owners(first)["a"] == ("ann", None, None, "tag")
    second = publish(
        "2026-11-02",
        tags | {"d": {}},
        {"c": (None, "7")},
        {"a": "forbidden", "b": "not_found", "c": "not_found"},
    )
    assert owners(second) == {"a": ("ann", None, None, "tag"), "d": (None, None, None, "none")}
    changes = {(row["id"], row["change"], row["field"]): row for row in published_rows(second, IMAGE_CHANGES)}
    assert {key: (row["owner"], row["cost_center"]) for key, row in changes.items()} == {
        ("b", "removed", "outcome"): ("bob", None),
        ("c", "removed", "outcome"): ("cleo", "7"),
        ("d", "changed", "tags"): (None, None),
    }
    changed = changes["d", "changed", "tags"]
    assert (changed["old_value"], changed["new_value"], changed["change_class"]) == (
        '{"owner": "dan"}',
        "{}",
        "metadata",
    )
    (gone,) = published_rows(second, IMAGE_RECONCILIATION)
    assert (gone["id"], gone["kind"], gone["owner"], gone["cost_center"]) == ("c", "registered_but_gone", "cleo", "7")


def test_changed_setting_is_another_input_of_a_day(tmp_path):
    day = proved_day("2026-11-01")
    publish_proved(day, {A: "PRIVATE"})
    recorded = derive_days(day).derived_manifest.inputs
    assert derived_inputs(day) == recorded
    # Letter case of a key is no difference.
    assert derived_inputs(proved_day("2026-11-01", tag_keys={"owner": "Owner"})) != recorded
    same = {"owner": "OWNER", "cost_center": "Cost_Center", "environment": "environment"}
    assert derived_inputs(proved_day("2026-11-01", tag_keys=same)) == recorded
    other = derived_inputs(proved_day("2026-11-01", tag_keys=same | {"owner": "team"}))
    assert other.model_copy(update={"tag_keys": recorded.tag_keys}) == recorded
    assert other.tag_keys != recorded.tag_keys


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('{"owner": "team", "color": "x"}', "tags cannot state 'color', only owner, cost_center, environment"),
        ('{"owner": " "}', "the key of 'owner' is empty: leave 'owner' out for no tag"),
        ('{"owner": "a", "owner": "b"}', "key 'owner' is stated twice"),
        ("owner=team", 'must be JSON, such as {"owner": "team", "cost_center": "billing-code"}'),
    ],
)
def test_wrong_tag_keys_are_one_sentence(value, reason, monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_TAG_KEYS", value)
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value).rstrip(".") == f"The setting IMAGE_SNAPSHOTS_TAG_KEYS is wrong: {reason}"


def test_tag_keys_are_read_from_the_environment(monkeypatch, tmp_path):
    assert Settings.load().owner_tags == {"owner": "owner", "cost_center": "cost_center", "environment": "environment"}
    monkeypatch.setenv("IMAGE_SNAPSHOTS_TAG_KEYS", '{"environment": "stage", "owner": " Team "}')
    assert Settings.load().owner_tags == {"owner": "Team", "environment": "stage"}
