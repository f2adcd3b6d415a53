"""A change has the image's name and owner, so that readers need no join."""

from published_days import day_of, publish_snapshot, published_rows

from pipelines.derive.days import derive_days
from pipelines.tables import IMAGE_CHANGES

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")


def publish(date, images, owners, **outcomes):
    day = day_of(date)
    publish_snapshot(
        day,
        images=[{"id": id_, "name": name, "content_hash": name} for id_, name in images.items()],
        responses=[
            {"id": id_, "outcome": outcome} for id_, outcome in ({**dict.fromkeys(images, "ok"), **outcomes}).items()
        ],
        inventory=[{"id": id_, "owner": owner, "cost_center": f"of {owner}"} for id_, owner in owners.items()],
    )
    derive_days(day)
    return {
        row["id"]: (row["change"], row["field"], row["name"], row["owner"], row["cost_center"])
        for row in published_rows(day, IMAGE_CHANGES)
    }


def test_change_has_the_new_name_and_that_day_s_owner(tmp_path):
    assert publish("2026-11-01", {A: "a", B: "b"}, {A: "ann", B: "bob"}) == {}
    assert publish("2026-11-02", {A: "renamed", C: "c"}, {A: "eve", B: "bob", C: "cleo"}, **{B: "not_found"}) == {
        A: ("changed", "name", "renamed", "eve", "of eve"),
        B: ("removed", "outcome", "b", "bob", "of bob"),
        C: ("added", "outcome", "c", "cleo", "of cleo"),
    }
