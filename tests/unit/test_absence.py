"""Images missing from the inventory: when they count as gone, and that a partial inventory changes nothing."""

import datetime as dt
import shutil

import pyarrow.parquet as pq
import pytest
from published_days import PROJECT_ID, day_of, publish_snapshot, published_rows

from pipelines.derive import audit
from pipelines.derive.analysis import Analysis
from pipelines.derive.audit import derive_audit_findings
from pipelines.derive.history import derive_image_changes, derive_image_history
from pipelines.derive.reconciliation import derive_image_reconciliation
from pipelines.inventory.cleaning import Inventory
from pipelines.snapshot.absence import judge, known_images, missing_rows
from pipelines.tables import AUDIT_FINDINGS, IMAGE_CHANGES, IMAGE_HISTORY, IMAGE_RECONCILIATION

ONE, TWO, THREE = "2026-11-01", "2026-11-02", "2026-11-03"
IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(10)]
A, B, C = IDS[:3]
NOT_WHOLE = {"is_whole": False, "reason": "It lacks too many."}


def publish(date, outcomes, *, source="inventory", listed=None, references=None, fetch=None, **facts):
    """Publish a day of ids with their outcomes; each `ok` one is a public image."""
    publish_snapshot(
        day_of(date),
        inventory=[{"id": id_, "owner": "vision", "cost_center": "7", "id_source": source} for id_ in outcomes],
        responses=[{"id": id_, "outcome": outcome} for id_, outcome in sorted(outcomes.items())],
        images=[
            {"id": id_, "name": "a", "type": "DEDICATED", "visibility": "PUBLIC", "content_hash": "a"}
            for id_, outcome in sorted(outcomes.items())
            if outcome == "ok"
        ],
        listed=listed,
        references=references,
        inventory_facts=facts,
        fetch_facts=fetch,
    )


def all_ok(ids):
    return dict.fromkeys(ids, "ok")


def read_file(ids):
    """An inventory of these ids, read completely."""
    with open("ids.txt", "w") as file:
        file.write("\n".join(ids) + "\n")
    inventory = Inventory(
        snapshot_date=dt.date(2026, 11, 3), project_key="default", project_keys=["default"], allow_empty=True
    )
    for _ in inventory.read("ids.txt", None):
        pass
    return inventory


def judged(ids, *, date=THREE, shortfall=0, ratio=0.1, accepted=False, project_id=PROJECT_ID):
    day = day_of(date)
    images = known_images(day.lake, day.partition, project_id)
    return judge(read_file(ids), "ids.txt", images, shortfall=shortfall, max_shrunk_ratio=ratio, accepted=accepted)


# -- whether the inventory is whole


def test_nothing_is_missing_before_the_first_complete_day():
    publish(ONE, {A: "ok", B: "failed"})
    found = judged([C])
    assert (found.known, found.missing, found.reason, found.is_accepted) == (0, 0, None, False)


@pytest.mark.parametrize(
    ("left", "ratio", "is_whole"),
    [(IDS, 0, True), (IDS[1:], 0, False), (IDS[1:], 0.1, True), (IDS[2:], 0.1, False), (IDS[9:], 0.9, True)],
)
def test_inventory_may_lack_a_share_of_the_known_images(left, ratio, is_whole):
    publish(ONE, all_ok(IDS))
    found = judged(left, ratio=ratio)
    assert (found.known, found.missing) == (10, 10 - len(left))
    assert (found.reason is None) is is_whole


def test_missing_images_are_reported_in_one_sentence_with_advice():
    publish(ONE, all_ok(IDS))
    assert judged(IDS[5:]).reason == (
        "The inventory ids.txt lacks 5 of the 10 images known on 2026-11-01, more than "
        "IMAGE_SNAPSHOTS_MAX_SHRUNK_RATIO (0.1) allows: they are asked for by id, and nothing counts as gone for not "
        "being in it. Correct the inventory or, if it is right, run today with --accept-shrunk-inventory."
    )


def test_new_ids_do_not_make_up_for_missing_ones():
    publish(ONE, all_ok(IDS[:5]))
    assert judged(IDS[5:]).missing == 5
    assert judged(IDS[5:]).reason is not None


def test_deleted_images_are_not_missed_but_forbidden_ones_are():
    publish(ONE, {A: "ok", B: "not_found", C: "forbidden", IDS[3]: "deleted", "no id": "invalid_id"})
    found = judged([A])
    assert (found.known, found.missing) == (2, 1)


def test_incomplete_days_are_not_compared_with():
    publish(ONE, all_ok(IDS))
    publish(TWO, {A: "ok", B: "failed"})
    assert (judged([A]).known, judged([A]).missing) == (10, 9)


def test_accepted_inventory_is_whole_whatever_it_lacks():
    publish(ONE, all_ok(IDS))
    found = judged([A], accepted=True)
    assert (found.missing, found.reason, found.is_accepted) == (9, None, True)
    # A complete inventory needs no acceptance.
    assert judged(IDS, accepted=True).is_accepted is False


def test_short_image_list_is_never_whole_and_cannot_be_accepted():
    publish(ONE, all_ok(IDS))
    found = judged(IDS[:9], shortfall=2, ratio=1, accepted=True)
    assert (found.missing, found.is_accepted) == (1, False)
    assert found.reason == (
        "The API's list shows 9 of the 11 images that it counts: the 1 it lacks of the 10 known on 2026-11-01 are "
        "asked for by id, and nothing counts as gone for not being on it."
    )


def test_rerun_of_an_accepted_day_is_compared_with_that_day():
    publish(ONE, all_ok(IDS))
    publish(TWO, all_ok(IDS[:5]), is_accepted=True)
    assert judged(IDS[:5], date=TWO).reason is None
    assert (judged(IDS[:2], date=TWO).known, judged(IDS[:2], date=TWO).missing) == (5, 3)


def test_rerun_of_an_unaccepted_day_is_compared_with_the_day_before():
    publish(ONE, all_ok(IDS))
    publish(TWO, all_ok(IDS[:5]))
    assert judged(IDS[:5], date=TWO).missing == 5


def test_days_of_another_project_id_are_not_compared_with():
    publish(ONE, all_ok(IDS))
    assert judged([A], project_id="p2").known == 0


@pytest.mark.parametrize("table", ["inventory", "responses"])
def test_damaged_days_are_skipped_and_the_inventory_is_not_whole(table):
    publish(ONE, all_ok(IDS[:8]))
    publish(TWO, all_ok(IDS))
    path = day_of(TWO).lake.table(table, day_of(TWO).partition)
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    found = judged(IDS[1:])
    assert (found.known, found.missing) == (8, 1)
    assert f"because {path} is not the file that its manifest names" in found.reason
    path.unlink()
    assert str(path) in judged(IDS).reason


def test_rows_of_missing_images_come_from_the_last_complete_day():
    publish(ONE, all_ok([A, B]) | {C: "not_found"})
    day = day_of(TWO)
    images = known_images(day.lake, day.partition, PROJECT_ID)
    (row,) = [row for batch in missing_rows(read_file([A]), images, day.partition.date) for row in batch.to_pylist()]
    assert (row["id"], row["id_source"], row["owner"]) == (B, "last_complete_day", "vision")
    assert row["snapshot_date"] == day.partition.date


# -- the consequences


@pytest.fixture
def two_rules(tmp_path, monkeypatch):
    """The audit has only these rules: one about an image, one about the list."""
    (tmp_path / "rules").mkdir()
    for name in ("public_dedicated_image", "not_registered"):
        shutil.copy(audit.RULES / f"{name}.sql", tmp_path / "rules")
    monkeypatch.setattr(audit, "RULES", tmp_path / "rules")


def derived(date):
    """Changes, findings (rule, id, state) and reconciliation of a day."""
    day = day_of(date)
    derive_image_history(day)
    with Analysis(day) as analysis:
        derive_image_changes(analysis)
        result = derive_image_reconciliation(analysis)
        derive_audit_findings(analysis)
    changes = [(row["id"], row["change"], row["new_value"]) for row in published_rows(day, IMAGE_CHANGES)]
    found = {(row["rule"], row["id"]): row["state"] for row in published_rows(day, AUDIT_FINDINGS)}
    kinds = {row["id"]: row["kind"] for row in published_rows(day, IMAGE_RECONCILIATION)}
    return changes, found, kinds, result


def test_images_missing_from_a_partial_inventory_stay_in_the_history(two_rules):
    rule = "public_dedicated_image"
    publish(ONE, all_ok([A, B]))
    publish(TWO, all_ok([A]), **NOT_WHOLE)
    publish(THREE, all_ok([A]))
    assert derived(ONE)[1] == {(rule, A): "new", (rule, B): "new"}
    changes, found, _, _ = derived(TWO)
    assert (changes, found) == ([], {(rule, A): "open", (rule, B): "open"})
    # The next whole inventory counts.
    changes, found, _, _ = derived(THREE)
    assert changes == [(B, "removed", "not_in_inventory")]
    assert found == {(rule, A): "open", (rule, B): "resolved"}
    # All of this is in the manifests, so the history can be derived again.
    path = day_of(ONE).lake.project_table(IMAGE_HISTORY.name, "default")
    before = pq.ParquetFile(path).read()
    path.unlink()
    derive_image_history(day_of(THREE))
    assert pq.ParquetFile(path).read().equals(before)


def test_response_counts_even_if_the_inventory_is_not_whole(two_rules):
    rule = "public_dedicated_image"
    publish(ONE, all_ok([A, B]))
    publish(TWO, {A: "ok", B: "not_found"}, source="last_complete_day", **NOT_WHOLE)
    derived(ONE)
    changes, found, kinds, _ = derived(TWO)
    assert changes == [(B, "removed", "not_found")]
    assert found == {(rule, A): "open", (rule, B): "resolved"}
    # The day's inventory does not name it, so it is not "registered and gone".
    assert kinds == {}


def listed(*ids):
    return [{"id": id_, "name": "b", "type": "DEDICATED"} for id_ in ids]


@pytest.mark.parametrize(
    ("second", "state"),
    [
        ({"listed": listed(A)}, "resolved"),
        ({"listed": listed(A), "fetch": {"list_shortfall": 1}}, "open"),
        ({"listed": listed(A), **NOT_WHOLE}, "open"),
        ({"listed": None}, "open"),
    ],
    ids=["whole", "short list", "inventory not whole", "list not read"],
)
def test_unregistered_finding_stays_until_whole_list_and_inventory_resolve_it(two_rules, second, state):
    publish(ONE, all_ok([A]), listed=listed(A, B))
    publish(TWO, all_ok([A]), **second)
    assert derived(ONE)[1]["not_registered", B] == "new"
    _, found, kinds, _ = derived(TWO)
    assert (found["not_registered", B], kinds) == (state, {})


def test_image_missing_from_a_partial_inventory_is_not_unregistered(two_rules):
    publish(ONE, all_ok([A]), listed=listed(A, B, C), **NOT_WHOLE)
    _, found, kinds, result = derived(ONE)
    assert (kinds, result.counts, result.was_compared) == ({}, {"registered_but_gone": 0}, False)
    assert not [rule for rule, _ in found if rule == "not_registered"]
