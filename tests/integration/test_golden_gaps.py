"""Days that never look everywhere: a source of usage that is forbidden for ever, a workspace that is not to be read."""

import datetime as dt

from golden_days import APPEARS, CATALOGUE, DATES, by_id, check_needed_images, manifest_of, story, take_days

from pipelines.sandbox import Faults


def test_nothing_becomes_unused_while_a_source_is_forbidden(tmp_path):
    faults = Faults(sources_forbidden=["training_jobs"])
    blind = take_days(tmp_path, DATES[:3], lambda _: faults, lambda _: frozenset({"training_jobs"}), registry="false")
    for date in DATES[:3]:
        rows = by_id(blind.rows("image_usage", date))
        assert rows == by_id(blind.oracle.usage(date))
        counts = {(row["is_observed"], row["observed_days"], row["unused_days"]) for row in rows.values()}
        assert counts == {(False, 0, 0)}
        check_needed_images(blind, date)
        # Only jobs use it.
        trained = rows[story("trained-with", date)]
        assert (trained["training_jobs"], trained["running"], trained["last_used_date"]) == (None, 0, None)
        assert {row["reclaimable_bytes"] for row in blind.rows("image_costs", date)} == {None}


def test_nothing_becomes_unused_while_a_workspace_is_not_read(tmp_path):
    before, *dates = [APPEARS + dt.timedelta(days=number) for number in (-1, 0, 1)]
    narrow = take_days(
        tmp_path, [before, *dates], lambda _: Faults(), lambda _: frozenset(), workspaces="0", registry="false"
    )
    first = by_id(narrow.rows("image_usage", before))
    assert first == by_id(narrow.oracle.usage(before))
    assert {row["unused_days"] for row in first.values()} == {0, 1}
    for date in dates:
        assert manifest_of(narrow, date)["fetch"]["scope"]["outside"] == [CATALOGUE.second_workspace]
        rows = by_id(narrow.rows("image_usage", date))
        assert {row["is_observed"] for row in rows.values()} == {False}
        for id_, row in rows.items():
            assert row["unused_days"] <= (first[id_]["unused_days"] if id_ in first else 0)
        check_needed_images(narrow, date)
