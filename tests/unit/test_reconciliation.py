"""The inventory compared with the image list: what is missing on each side, and the likely owner."""

import datetime as dt

import pytest
from published_days import day_of, publish_snapshot, published_rows, write_history

from pipelines.derive.analysis import Analysis
from pipelines.derive.reconciliation import derive_image_reconciliation
from pipelines.tables import IMAGE_RECONCILIATION

NOTHING = dict.fromkeys([column.name for column in IMAGE_RECONCILIATION.columns[2:]])


@pytest.fixture
def day():
    return day_of("2026-11-23")


def derive(day):
    with Analysis(day) as analysis:
        return derive_image_reconciliation(analysis)


def inventory(**owners):
    return [{"id": id_, "owner": owner} for id_, owner in owners.items()]


def outcomes(**outcomes):
    return [{"id": id_, "outcome": outcome} for id_, outcome in outcomes.items()]


def test_listed_image_without_registration_is_not_registered(day):
    publish_snapshot(
        day,
        listed=[
            {
                "id": " AB-1 ",
                "name": "torch",
                "namespace": "vision",
                "swr_path": "swr.example/vision/torch:1",
                "visibility": "PUBLIC",
                "size": 3,
            },
            {"id": "CD-2", "name": "registered"},
        ],
        inventory=inventory(**{"cd-2": "ann"}),
        responses=outcomes(**{"cd-2": "ok"}),
        images=[{"id": "cd-2", "namespace": "speech"}],
    )
    result = derive(day)
    assert published_rows(day, IMAGE_RECONCILIATION) == [
        NOTHING
        | {
            "id": "ab-1",
            "kind": "not_registered",
            "name": "torch",
            "namespace": "vision",
            "swr_path": "swr.example/vision/torch:1",
            "visibility": "PUBLIC",
            "size_bytes": 3072,
        }
    ]
    assert result.file.rows == 1
    assert result.file.path == ("image_reconciliation/dt=2026-11-23/project=default/image_reconciliation.parquet")
    assert result.counts == {"not_registered": 1, "registered_but_gone": 0}
    assert result.was_compared is True


def test_unregistered_images_are_found_on_any_page(day):
    """Pages are read in groups, so these images are at the beginnings and ends of groups."""
    listed = [{"id": f"i{number:03}", "name": f"name {number}", "size": number} for number in range(200)]
    unknown = [0, 47, 48, 95, 96, 150, 199]
    registered = {item["id"]: None for number, item in enumerate(listed) if number not in unknown}
    listed[151] = {"id": "I150", "name": "shown twice"}
    publish_snapshot(
        day,
        listed=listed,
        inventory=inventory(**registered),
        responses=outcomes(**dict.fromkeys(registered, "ok")),
        images=[{"id": id_} for id_ in registered],
    )
    assert derive(day).counts == {"not_registered": len(unknown), "registered_but_gone": 0}
    found = published_rows(day, IMAGE_RECONCILIATION)
    assert [(row["id"], row["name"], row["size_bytes"]) for row in found] == [
        (f"i{number:03}", f"name {number}", number * 1024) for number in unknown
    ]


def test_registered_image_is_gone_only_if_the_api_says_so(day):
    publish_snapshot(
        day,
        listed=[],
        inventory=[
            {"id": "a", "owner": "ann", "cost_center": "cc-1", "environment": "prod"},
            *inventory(b=None, c=None, d=None, e=None, f=None),
        ],
        responses=outcomes(a="deleted", b="not_found", c="not_found", d="ok", e="forbidden", f="invalid_id"),
        images=[
            {"id": "a", "name": "new", "namespace": "ns", "swr_path": "p:new", "visibility": "PRIVATE"},
            {"id": "d", "name": "living"},
        ],
    )
    write_history(
        day,
        [
            {"id": "a", "valid_from": dt.date(2026, 11, 20), "name": "old", "size_bytes": 7},
            {"id": "b", "valid_from": dt.date(2026, 11, 20), "name": "first", "is_current": False},
            {"id": "b", "valid_from": dt.date(2026, 11, 22), "name": "second", "namespace": "ns", "size_bytes": 5},
            {"id": "e", "valid_from": dt.date(2026, 11, 20), "name": "unreadable"},
        ],
    )
    result = derive(day)
    gone = NOTHING | {"kind": "registered_but_gone"}
    assert published_rows(day, IMAGE_RECONCILIATION) == [
        gone
        | {
            "id": "a",
            "outcome": "deleted",
            "name": "new",
            "namespace": "ns",
            "swr_path": "p:new",
            "visibility": "PRIVATE",
            "size_bytes": 7,
            "owner": "ann",
            "cost_center": "cc-1",
            "environment": "prod",
        },
        gone
        | {
            "id": "b",
            "outcome": "not_found",
            "name": "second",
            "namespace": "ns",
            "size_bytes": 5,
            "likely_owner": "ann",
        },
        gone | {"id": "c", "outcome": "not_found"},
    ]
    assert result.counts == {"not_registered": 0, "registered_but_gone": 3}


def test_likely_owner_is_the_only_owner_of_the_namespace(day):
    publish_snapshot(
        day,
        listed=[
            {"id": "u1", "namespace": "one"},
            {"id": "u2", "namespace": "several"},
            {"id": "u3", "namespace": "none"},
            {"id": "u4"},
            {"id": "u5", "namespace": ""},
        ],
        inventory=inventory(a="ann", b="ann", c=None, d="ann", e="bob", f=None, g="eve", h="eve"),
        responses=outcomes(a="ok", b="ok", c="ok", d="ok", e="ok", f="ok", g="ok", h="ok"),
        images=[
            {"id": "a", "namespace": "one"},
            {"id": "b", "namespace": "one"},
            {"id": "c", "namespace": "one"},
            {"id": "d", "namespace": "several"},
            {"id": "e", "namespace": "several"},
            {"id": "f", "namespace": "none"},
            {"id": "g"},
            {"id": "h", "namespace": ""},
        ],
    )
    derive(day)
    likely = {row["id"]: row["likely_owner"] for row in published_rows(day, IMAGE_RECONCILIATION)}
    assert likely == {"u1": "ann", "u2": None, "u3": None, "u4": None, "u5": None}


def test_missing_list_gives_no_unregistered_images(day):
    publish_snapshot(day, inventory=inventory(a=None), responses=outcomes(a="not_found"))
    result = derive(day)
    assert published_rows(day, IMAGE_RECONCILIATION) == [
        NOTHING | {"id": "a", "kind": "registered_but_gone", "outcome": "not_found"}
    ]
    assert result.counts == {"registered_but_gone": 1}
    assert result.was_compared is False


def test_old_day_derived_again_ignores_later_days(day):
    publish_snapshot(day, inventory=inventory(a=None), responses=outcomes(a="not_found"))
    write_history(
        day,
        [
            {"id": "a", "valid_from": dt.date(2026, 11, 22), "name": "then", "is_current": False},
            {"id": "a", "valid_from": dt.date(2026, 11, 25), "name": "later"},
        ],
    )
    first = derive(day)
    assert [row["name"] for row in published_rows(day, IMAGE_RECONCILIATION)] == ["then"]
    assert derive(day) == first
