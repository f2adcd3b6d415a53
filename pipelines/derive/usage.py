"""Who uses which image, and for how long nobody has used the others.

Which image a reference means is `sql/derive/referenced_images.sql`, the counting `sql/derive/image_usage.sql`; reading
the resources that name images belongs to the fetch. How far the days looked, and how that is said, belongs here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.derive.analysis import Analysis
from pipelines.engine.sql_files import read_sql
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import UNREAD, FetchFacts, FileFacts, Manifest, published_days
from pipelines.tables import IMAGE_USAGE, USAGE_SOURCES

# So many observed days without a use, and an image counts as unused.
UNUSED_AFTER_DAYS = 30

_SOURCES = ("current_images", "referenced_images", "previous_usage", "later_usage")


@dataclass(frozen=True, slots=True)
class UsageResult:
    """The written table, its images, and how many of them are used or have long been unused.

    `used` is None on a day that is not observed: incomplete, or something was not read that could use an image.
    `unmatched_references`: those that mean no known image, None when no source of usage was read.
    """

    file: FileFacts
    images: int
    used: int | None
    unused: int
    unmatched_references: int | None


def derive_image_usage(analysis: Analysis) -> UsageResult:
    """Write `image_usage` of the day; what it carries on are the tables of the last published and last complete day.

    Raises:
        StorageError: the lake cannot be read or written.
    """
    fetch = analysis.manifest.fetch
    was_read = {name: name in fetch.sources and fetch.sources[name].was_read for name in USAGE_SOURCES}
    observed = observed_days(analysis.lake, analysis.manifest)
    earlier = [day for day in observed if day.snapshot_date < analysis.partition.date]
    later = analysis.before if analysis.before != analysis.previous else None
    analysis.load_derived(IMAGE_USAGE, "previous_usage", analysis.previous)
    analysis.load_derived(IMAGE_USAGE, "later_usage", later)
    (has_previous,) = analysis.engine.read(
        "SELECT (SELECT COUNT(*) FROM previous_usage) + (SELECT COUNT(*) FROM later_usage) > 0 AS has_previous"
    )["has_previous"].to_pylist()
    analysis.engine.load(
        "usage_parameters",
        pa.table(
            {
                "was_read": [any(was_read.values())],
                "has_previous_usage": [has_previous],
                "looked_at": pa.array([earlier[-1].fetch.started_at if earlier else None], pa.timestamp("us", "UTC")),
                **{f"{name}_were_read": [read] for name, read in was_read.items()},
            }
        ),
    )
    dates = pa.array([day.snapshot_date for day in observed], pa.date32())
    analysis.engine.load("observed_dates", pa.table({"snapshot_date": dates}))
    analysis.engine.hold("referenced_images", [read_sql("derive/referenced_images.sql")])
    file = analysis.write_by_id(IMAGE_USAGE, read_sql("derive/image_usage.sql"), _SOURCES)
    analysis.load_today(IMAGE_USAGE)
    (facts,) = analysis.engine.read(
        f"""
        SELECT
            COUNT(*) AS images,
            CASE
                WHEN (SELECT is_complete AND usage_is_observed FROM parameters)
                THEN COUNT(CASE WHEN unused_days = 0 THEN 1 END)
            END AS used,
            COUNT(CASE WHEN unused_days >= {UNUSED_AFTER_DAYS} THEN 1 END) AS unused,
            CASE
                WHEN (SELECT was_read FROM usage_parameters)
                THEN (SELECT COUNT(*) FROM referenced_images WHERE id IS NULL)
            END AS unmatched_references
        FROM image_usage
        """  # noqa: S608  (a number of ours)
    ).to_pylist()
    return UsageResult(file, **facts)


def observed_days(lake: Lake, manifest: Manifest) -> list[Manifest]:
    """The observed days up to a day's, in order: when it is one itself, those that looked at no less than it did.

    Raises:
        StorageError: a manifest is not what one must be.
    """
    days = [day.manifest for day in published_days(lake, manifest.project)]
    observed = [day for day in days if day.snapshot_date <= manifest.snapshot_date and is_observed(day)]
    return [day for day in observed if _looked_as_far(day.fetch, manifest.fetch)] if is_observed(manifest) else observed


def is_observed(manifest: Manifest) -> bool:
    """Whether what was not seen in use on a day was not in use, as far as that day was to look."""
    return manifest.is_complete and manifest.fetch.usage_is_observed


def _looked_as_far(one: FetchFacts, other: FetchFacts) -> bool:
    """Whether a day looked at no less than another did. A workspace that the API did not list yet was not there."""
    has_workspaces = one.scope.origin == "asked" or set(other.scope.workspaces) <= set(one.scope.workspaces)
    return has_workspaces and set(other.usage_kinds) <= set(one.usage_kinds)


# --- in words -------------------------------------------------------------------------------------------------------


def users_in_words(kinds: Sequence[str], workspaces: int) -> str:
    """What was looked at, for a sentence with "no" or "any": "notebook, model or service in 2 workspaces".

    `kinds` are names of sources, at least one.
    """
    *others, last = (USAGE_SOURCES[name].replace("_", " ") for name in kinds)
    words = f"{', '.join(others)} or {last}" if others else last
    return f"{words} in {workspaces:,} {'workspace' if workspaces == 1 else 'workspaces'}"


def reasons_not_observed(fetch: FetchFacts) -> list[str]:
    """Why a day that was to look at usage did not look at all of it, a sentence for each reason."""
    reasons = []
    for name in fetch.usage_kinds:
        facts, words = fetch.sources[name], name.replace("_", " ").capitalize()
        if not facts.was_read:
            reasons.append(f"{words} were not read{_because(facts.error)}.")
        elif facts.partial is not None:
            reasons.append(f"{words} were read in part{_because(facts.partial)}.")
    if fetch.scope.origin == UNREAD:
        reasons.append(f"Which workspaces there are was not read{_because(fetch.scope.error)}.")
    if outside := fetch.scope.outside:
        named = f"{'workspace' if len(outside) == 1 else 'workspaces'} {', '.join(outside)}"
        reasons.append(f"Nothing was read in the {named}{_because(fetch.scope.error)}.")
    return reasons


def _because(reason: str | None) -> str:
    return f" ({reason.rstrip('.')})" if reason else ""
