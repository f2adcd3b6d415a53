"""Whatever was not read, nothing is concluded from it: chance uses of images, read through chance gaps."""

import datetime as dt
import random

from priced_days import GB, priced_day
from published_days import publish_snapshot, published_rows

from pipelines.derive import costs
from pipelines.derive.analysis import Analysis
from pipelines.derive.bills import derive_bills
from pipelines.derive.usage import derive_image_usage
from pipelines.lake.manifests import ScopeFacts, SourceFacts
from pipelines.tables import IMAGE_COSTS, IMAGE_USAGE, USAGE_SOURCES

IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(12)]
NEEDED, NEVER = IDS[0], IDS[1]
WHOLE = SourceFacts(wanted=True, was_read=True)
FIRST = dt.date(2026, 11, 1)
DAYS = 10
UNUSED_AFTER = 2


def uses_of(chance):
    """The resources of a day: a service that needs one image for ever, and others that come and go."""
    others = [id_ for id_ in IDS[2:] if chance.random() < 0.25]
    return [("services", NEEDED, "required")] + [
        (chance.choice([*USAGE_SOURCES]), id_, chance.choice(["running", "required", "past"])) for id_ in others
    ]


def gap_of(chance):
    """What of a day was not read: the facts of its sources, workspaces outside, and whether an image gave no answer."""
    sources, outside, fails = dict.fromkeys(USAGE_SOURCES, WHOLE), [], False
    match chance.choice(["none", "none", "none", "unread", "partial", "outside", "incomplete"]):
        case "unread":
            sources[chance.choice([*USAGE_SOURCES])] = SourceFacts(wanted=True, error="HTTP 403.")
        case "partial":
            sources[chance.choice([*USAGE_SOURCES])] = SourceFacts(wanted=True, was_read=True, partial="Own ones.")
        case "outside":
            outside = ["7"]
        case "incomplete":
            fails = True
    return sources, outside, fails


def test_no_image_becomes_unused_by_what_was_not_read(monkeypatch):
    monkeypatch.setattr(costs, "UNUSED_AFTER_DAYS", UNUSED_AFTER)
    chance = random.Random(2)
    last_seen, observed, before, kinds_of_days = {}, [], {}, set()
    for number in range(DAYS):
        date = FIRST + dt.timedelta(days=number)
        uses, (sources, outside, fails) = uses_of(chance), gap_of(chance)
        is_whole = not outside and all(facts == WHOLE for facts in sources.values())
        kinds_of_days.add((is_whole, fails))
        if is_whole and not fails:
            observed.append(date)
        # Of a source that shows a part alone, nobody knows which.
        seen = [
            use
            for use in uses
            if sources[use[0]].was_read and (sources[use[0]].partial is None or chance.random() < 0.5)
        ]
        last_seen |= {id_: date for _, id_, _ in seen}
        day = priced_day(date.isoformat())
        publish_snapshot(
            day,
            inventory=[{"id": id_} for id_ in IDS],
            responses=[{"id": id_, "outcome": "ok"} for id_ in IDS]
            + ([{"id": "f", "outcome": "failed", "error_code": "HTTP.500"}] if fails else []),
            images=[{"id": id_, "size_bytes": GB, "type": "DEDICATED"} for id_ in IDS],
            references=[
                {
                    "kind": USAGE_SOURCES[source],
                    "resource_id": f"r{place}",
                    "image_id": id_,
                    "strength": strength,
                    "last_active_at": dt.datetime.combine(date, dt.time(9), dt.UTC),
                }
                for place, (source, id_, strength) in enumerate(sorted(seen))
            ],
            fetch_facts={
                "sources": sources,
                "scope": ScopeFacts(workspaces=["0"], origin="asked", outside=outside),
            },
        )
        with Analysis(day) as analysis:
            derive_image_usage(analysis)
            costs.derive_image_costs(analysis, derive_bills(analysis))
        usage = {row["id"]: row for row in published_rows(day, IMAGE_USAGE)}
        reclaimable = {row["id"]: row["reclaimable_bytes"] for row in published_rows(day, IMAGE_COSTS)}
        for id_, row in usage.items():
            unused = row["unused_days"]
            assert row["is_observed"] == (is_whole and not fails)
            assert unused == sum(one > last_seen.get(id_, dt.date.min) for one in observed), (date, id_)
            if not row["is_observed"]:
                assert unused <= before.get(id_, {"unused_days": 0})["unused_days"], (date, id_)
            if not is_whole:
                assert reclaimable[id_] is None, (date, id_)
            elif reclaimable[id_]:
                assert unused >= UNUSED_AFTER
                assert id_ not in {used for _, used, strength in uses if strength != "past"}
            if id_ in {used for _, used, _ in seen}:
                assert (unused, row["last_used_date"]) == (0, date)
        assert not reclaimable[NEEDED], date
        if is_whole and not fails:
            assert usage[NEVER]["unused_days"] == len(observed)
            assert reclaimable[NEVER] == (GB if len(observed) >= UNUSED_AFTER else 0)
        before = usage
    assert len(kinds_of_days) == 3
    assert len(observed) > UNUSED_AFTER
