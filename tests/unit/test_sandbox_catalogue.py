"""The sandbox's catalogue: reproducible, lively, and consistent with its own record."""

import re
import time
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sandbox.catalogue import Answer, Catalogue, Event
from pipelines.sandbox.storylines import STORYLINES
from pipelines.tables import KNOWN_VALUES, LIST_FIELDS

DAY = date(2026, 11, 23)
FORTNIGHT = 14


def days_from(first, count=FORTNIGHT):
    return [first + timedelta(days=n) for n in range(count)]


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue("test", 250)


@pytest.fixture(scope="module")
def images(catalogue):
    """The details call's responses for everything listed on `DAY`."""
    return {image_id: catalogue.answer(image_id, DAY) for image_id in catalogue.ids(DAY)}


def test_equal_arguments_give_equal_catalogues(catalogue, images):
    again = Catalogue("test", 250)
    assert {image_id: again.answer(image_id, DAY) for image_id in again.ids(DAY)} == images
    assert list(again.inventory(DAY)) == list(catalogue.inventory(DAY))
    assert list(again.notebooks(DAY)) == list(catalogue.notebooks(DAY))


def test_values_do_not_depend_on_the_interpreter():
    # Pinned: a change here gives everybody another catalogue for the same seed.
    assert next(Catalogue("pinned", 250).ids(DAY)) == PINNED_ID


PINNED_ID = "7773bb02-5f89-4de0-84eb-843a866b8d5c"


@pytest.mark.parametrize("other", [Catalogue("other", 250), Catalogue("test", 250, "second")])
def test_different_seed_or_project_shares_no_id(catalogue, other):
    assert not set(catalogue.ids(DAY)) & set(other.ids(DAY))
    assert other.image(next(catalogue.ids(DAY)), DAY) is None


def test_ids_are_uuids_in_lower_case_and_unique(images):
    assert len(images) == Catalogue("test", 250).count(DAY)
    assert all(str(uuid.UUID(image_id)) == image_id for image_id in images)
    assert all(uuid.UUID(image_id).version == 4 for image_id in images)


def test_images_look_like_the_api_s(catalogue, images):
    bodies = [answer.body for answer in images.values() if answer.http_status == 200]
    assert len(bodies) > 230
    odd = catalogue.storylines(DAY)["odd"]
    midnight = datetime.combine(DAY, datetime.min.time(), UTC).timestamp() * 1000
    for image_id, answer in images.items():
        if answer.http_status != 200 or image_id == odd:
            continue
        body = answer.body
        assert body["id"] == image_id
        assert body["create_at"] <= body["update_at"] < midnight
        assert body["swr_path"].startswith("swr.eu-de.otc.t-systems.com/")
        if "tag" in body and "namespace" in body:
            assert re.fullmatch(rf"[^/]+/{body['namespace']}/[^/:]+:{re.escape(body['tag'])}", body["swr_path"])
        assert int(body["size"]) > 0 if "size" in body else True
        assert all(isinstance(body[name], list) for name in LIST_FIELDS if name in body)


def test_bodies_have_real_irregularities(images):
    bodies = [answer.body for answer in images.values() if answer.http_status == 200]
    for name in ("namespace", "visibility", "flavor_type", "description", "support_res_categories"):
        assert any(name not in body for body in bodies), name
    assert any(body.get("description", "") is None for body in bodies)
    assert any(isinstance(body.get("size"), str) for body in bodies)
    assert any("tags" in body for body in bodies)
    assert {body["arch"] for body in bodies} == {"X86_64", "x86_64", "AARCH64", "aarch64"}
    assert any(value not in KNOWN_VALUES["dev_services"] for body in bodies for value in body["dev_services"])
    assert any(body["dev_services"] == [] for body in bodies)


def test_every_documented_status_occurs_within_a_fortnight(catalogue):
    seen = Counter(
        catalogue.image(row.id, day)["status"]
        for day in days_from(DAY)
        for row in catalogue.inventory(day)
        if catalogue.image(row.id, day)
    )
    assert seen.keys() == KNOWN_VALUES["status"]


def test_every_kind_of_refusal_occurs(catalogue):
    answers = [catalogue.answer(row.id, DAY) for row in catalogue.inventory(DAY)]
    kinds = {(answer.http_status, (answer.body or {}).get("error_code")) for answer in answers}
    assert kinds == {
        (200, None),
        (400, "ModelArts.6404"),
        (404, "ModelArts.6404"),
        (404, None),
        (403, "ModelArts.0108"),
    }


@pytest.mark.parametrize(
    "image_id", ["group", "", "278e88d1-5b71-4766-8502-b3ba72e824d9", "00000000-0000-0000-0000-000000000000"]
)
def test_unknown_id_is_not_found(catalogue, image_id):
    assert catalogue.answer(image_id, DAY).http_status in (400, 404)
    assert catalogue.image(image_id, DAY) is None


def test_upper_case_id_is_not_found(catalogue):
    assert catalogue.image(next(catalogue.ids(DAY)).upper(), DAY) is None


# -- storylines


def week_of(catalogue, name, first):
    """The story of each id that plays it in the 14 days from `first` on: id -> [(day, response)]."""
    days = days_from(first)
    ids = {catalogue.storylines(day)[name] for day in days}
    return {image_id: [(day, catalogue.answer(image_id, day)) for day in days] for image_id in ids}


def pairs(story):
    return [(before, after) for (_, before), (_, after) in pairwise(story)]


def changes(stories, name):
    """All (old, new) values of one field on adjacent days that both describe the image."""
    return {
        (before.body[name], after.body[name])
        for story in stories.values()
        for before, after in pairs(story)
        if before.http_status == after.http_status == 200 and before.body[name] != after.body[name]
    }


def statuses(story):
    """What an outsider sees, day by day, without repetitions."""
    seen = [answer.body["status"] if answer.http_status == 200 else answer.http_status for _, answer in story]
    seen = [404 if one == 400 else one for one in seen]
    return [one for index, one in enumerate(seen) if index == 0 or one != seen[index - 1]]


WINDOWS = st.dates(date(2020, 1, 1), date(2040, 1, 1))


@settings(max_examples=21, deadline=None)
@given(first=WINDOWS)
def test_every_storyline_occurs_within_any_14_days(first):
    catalogue = Catalogue("test", 50)
    lived = [statuses(story) for story in week_of(catalogue, "short-lived", first).values()]
    assert [404, "ACTIVE", "DELETED", 404] in lived
    assert any(
        new.startswith("Described anew") for _, new in changes(week_of(catalogue, "short-lived", first), "description")
    )

    failed = [statuses(story) for story in week_of(catalogue, "failed-build", first).values()]
    assert any(
        story[-4:] == ["INIT", "CREATING", "CREATE_FAILED", 404]
        or story[:5] == [404, "INIT", "CREATING", "CREATE_FAILED", 404]
        for story in failed
    )

    pushed = week_of(catalogue, "re-pushed", first)
    assert changes(pushed, "size")
    assert changes(pushed, "update_at")
    assert not changes(pushed, "swr_path")
    assert not changes(pushed, "create_at")

    assert ("PUBLIC", "PRIVATE") in changes(week_of(catalogue, "narrowed", first), "visibility")
    assert ("PRIVATE", "PUBLIC") in changes(week_of(catalogue, "widened", first), "visibility")
    assert ("ACTIVE", "ERROR") in changes(week_of(catalogue, "broken", first), "status")
    assert any(
        "ACTIVE, 404, ACTIVE" in ", ".join(map(str, statuses(s)))
        for s in week_of(catalogue, "vanishing", first).values()
    )
    assert any(
        "ACTIVE, 403, ACTIVE" in ", ".join(map(str, statuses(s))) for s in week_of(catalogue, "locked", first).values()
    )
    assert all(
        catalogue.answer(catalogue.storylines(day)["forbidden"], day).http_status == 403 for day in days_from(first)
    )

    giants = {catalogue.storylines(day)["unused-giant"] for day in days_from(first)}
    for day in days_from(first):
        giant = catalogue.image(catalogue.storylines(day)["unused-giant"], day)
        assert giant["size"] == 180 * 1024 * 1024
        assert giant["status"] == "ACTIVE"
        assert not giants & {notebook["image"]["id"] for notebook in catalogue.notebooks(day)}
        assert catalogue.storylines(day)["unregistered"] not in {row.id for row in catalogue.inventory(day)}

    odd_pairs = [pair for story in week_of(catalogue, "odd", first).values() for pair in pairs(story)]
    described = [(old.body, new.body) for old, new in odd_pairs if old.http_status == new.http_status == 200]
    assert any("swr_instance_id" not in old and "swr_instance_id" in new for old, new in described)


def test_storylines_run_side_by_side(catalogue):
    assert catalogue.storylines(DAY).keys() == {story.name for story in STORYLINES}
    assert len(set(catalogue.storylines(DAY).values())) == len(STORYLINES)


# -- the record of changes


def test_recorded_changes_equal_the_difference_of_two_days(catalogue):
    days = days_from(DAY)
    recorded = list(catalogue.events(days[1], days[-1]))
    assert recorded == sorted(recorded, key=lambda event: event.day)
    by_day_and_id = {}
    for event in recorded:
        by_day_and_id.setdefault((event.day, event.id), []).append(event)
    known = {image_id for day in days for image_id in catalogue.ids(day)} | {
        row.id for day in days for row in catalogue.inventory(day)
    }
    for before, after in pairwise(days):
        for image_id in known:
            old, new = catalogue.image(image_id, before), catalogue.image(image_id, after)
            events = by_day_and_id.get((after, image_id), [])
            if old and new and new["status"] != "DELETED":
                fields = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
                assert {event.field for event in events} == fields
                assert all((event.old, event.new) == (old.get(event.field), new.get(event.field)) for event in events)
            elif old and new:
                assert [event.kind for event in events] == (["deleted"] if old["status"] != "DELETED" else [])
            elif new:
                assert [event.kind for event in events] in (["created"], ["returned"], ["readable"])
            elif old:
                assert [event.kind for event in events] in (["gone"], ["vanished"], ["forbidden"])


def test_recorded_changes_have_every_kind(catalogue):
    kinds = Counter(event.kind for event in catalogue.events(DAY, DAY + timedelta(days=13)))
    assert kinds.keys() == {
        "created", "returned", "vanished", "deleted", "gone", "forbidden", "readable",
        "re_pushed", "narrowed", "widened", "status", "updated",
    }  # fmt: skip


def test_event_names_day_image_field_and_both_values(catalogue):
    week = catalogue.events(DAY, DAY + timedelta(days=6))
    narrowed = [e for e in week if e.kind == "narrowed" and e.id == catalogue.storylines(e.day)["narrowed"]]
    assert len(narrowed) == 1
    day, image_id = narrowed[0].day, narrowed[0].id
    assert narrowed == [Event(day, image_id, "narrowed", "visibility", "PUBLIC", "PRIVATE")]
    assert catalogue.image(image_id, day - timedelta(days=1))["visibility"] == "PUBLIC"


# -- list, inventory, notebooks


def test_pages_add_up_to_the_list(catalogue):
    ids = list(catalogue.ids(DAY))
    items = [item for offset in range(0, 250, 40) for item in catalogue.page(DAY, offset, 40)]
    assert [item["id"] for item in items] == ids
    assert not any("support_res_categories" in item for item in items)
    assert catalogue.page(DAY, len(ids), 40) == []
    vanished = next(d for d in days_from(DAY) if catalogue.image(catalogue.storylines(d)["vanishing"], d) is None)
    assert catalogue.storylines(vanished)["vanishing"] not in set(catalogue.ids(vanished))
    assert len(list(catalogue.ids(vanished))) == catalogue.count(vanished) < 250


def test_inventory_lacks_some_images_and_has_some_deleted_ones(catalogue):
    registered = [row.id for row in catalogue.inventory(DAY)]
    listed = set(catalogue.ids(DAY))
    assert len(registered) == len(set(registered))
    assert 1 <= len(listed - set(registered)) <= 15
    assert 3 <= len(set(registered) - listed) <= 40
    assert {row.project for row in catalogue.inventory(DAY)} == {"default"}
    assert any(not row.owner for row in catalogue.inventory(DAY))


def test_notebooks_use_images_of_the_day_and_hold_secrets(catalogue):
    notebooks = list(catalogue.notebooks(DAY))
    assert len(notebooks) == catalogue.notebook_count() > 40
    assert {notebook["image"]["id"] for notebook in notebooks} <= set(catalogue.ids(DAY))
    assert len({notebook["id"] for notebook in notebooks}) == len(notebooks)
    assert all(notebook["token"] in notebook["url"] for notebook in notebooks)
    assert list(catalogue.notebooks(DAY, 10, 5)) == notebooks[10:15]
    for key in ("name", "status", "user", "lease", "volume", "flavor"):
        assert all(notebook[key] for notebook in notebooks)


# -- size


@pytest.mark.parametrize("size", [0, 1, 5, len(STORYLINES), len(STORYLINES) + 1])
def test_catalogue_of_any_size_works(size):
    catalogue = Catalogue("test", size)
    assert len(list(catalogue.ids(DAY))) == catalogue.count(DAY) <= size
    assert len(catalogue.storylines(DAY)) == min(size, len(STORYLINES))
    assert len(list(catalogue.notebooks(DAY))) == catalogue.notebook_count()
    assert isinstance(catalogue.answer("278e88d1-5b71-4766-8502-b3ba72e824d9", DAY), Answer)


def test_million_images_start_at_once():
    started = time.process_time()
    catalogue = Catalogue("test", 1_000_000)
    assert catalogue.count(DAY) > 999_980
    last = catalogue.page(DAY, catalogue.count(DAY) - 3, 10)
    assert len(last) == 3
    assert catalogue.image(last[-1]["id"], DAY) is not None or catalogue.answer(last[-1]["id"], DAY).http_status == 403
    assert len(list(islice(catalogue.ids(DAY), 100))) == 100
    assert len(list(catalogue.notebooks(DAY, 150_000, 10))) == 10
    # One by one, a million images would take minutes.
    assert time.process_time() - started < 10


def test_negative_size_is_refused():
    with pytest.raises(ValueError, match="size must be from 0"):
        Catalogue("test", -1)
