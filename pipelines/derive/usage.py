"""Which images notebooks use, and for how long the others have not been used.

The counting itself is `sql/derive/image_usage.sql`; reading the notebooks belongs to the fetch.
"""

from dataclasses import dataclass

from pipelines.derive.analysis import Analysis
from pipelines.engine.sql_files import read_sql
from pipelines.lake.manifests import FileFacts
from pipelines.tables import IMAGE_USAGE

# So many observed days without a notebook, and an image counts as unused.
UNUSED_AFTER_DAYS = 30


@dataclass(frozen=True, slots=True)
class UsageResult:
    """The written table, its images, and how many of them have a notebook or have long had none.

    `used` is None on a day that is not observed: incomplete, or its notebooks were not read.
    """

    file: FileFacts
    images: int
    used: int | None
    unused: int


def derive_image_usage(analysis: Analysis) -> UsageResult:
    """Write `image_usage` of the day; what it carries on is the table of the last complete day.

    Raises:
        StorageError: the lake cannot be written.
    """
    analysis.load_derived(IMAGE_USAGE, "previous_usage", analysis.previous)
    has_previous = analysis.engine.read("SELECT COUNT(*) > 0 AS has_previous_usage FROM previous_usage")
    analysis.engine.load("usage_parameters", has_previous)
    file = analysis.write_by_id(IMAGE_USAGE, read_sql("derive/image_usage.sql"), ("current_images", "previous_usage"))
    analysis.load_today(IMAGE_USAGE)
    (facts,) = analysis.engine.read(
        f"""
        SELECT
            COUNT(*) AS images,
            CASE
                WHEN (SELECT is_complete AND usage_was_read FROM parameters)
                THEN COUNT(CASE WHEN notebooks > 0 THEN 1 END)
            END AS used,
            COUNT(CASE WHEN unused_days >= {UNUSED_AFTER_DAYS} THEN 1 END) AS unused
        FROM image_usage
        """  # noqa: S608  (a number of ours)
    ).to_pylist()
    return UsageResult(file, **facts)
