"""The assets of the daily snapshot: image_inventory -> image_responses -> images, image_values.

Each step stages its table in the lake; the last one publishes the whole day at once, so a materialisation of
`images` is what makes a day visible to readers.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.metadata import (
    counts_metadata,
    definition_metadata,
    fetch_metadata,
    file_metadata,
    inventory_metadata,
    rows_metadata,
    selected,
)
from assets.resources import DayResource
from pipelines.lake.manifests import inventory_warning, short_list
from pipelines.plain_text import visible
from pipelines.preflight import check_inputs
from pipelines.snapshot.steps import fetch_answers, publish_day, take_inventory
from pipelines.tables import IMAGE_VALUES, IMAGES, INVENTORY, RESPONSES, SCHEMA_VERSION, Table

API_POOL = "modelarts_api"
OWNERS = ["team:platform"]
_WARN = dg.AssetCheckSeverity.WARN
_CODE_VERSION = str(SCHEMA_VERSION)


def daily_snapshot_assets(
    grid: dg.MultiPartitionsDefinition, freshness: dg.FreshnessPolicy, retry: dg.RetryPolicy | None
) -> list[dg.AssetsDefinition]:
    """Make the assets for a grid of partitions; `retry` is for the steps that ask somebody over the network."""

    @dg.asset(
        description="The image ids that the inventory source states for the project on that day, cleaned and counted.",
        group_name="inventory",
        kinds={"parquet"},
        owners=OWNERS,
        partitions_def=grid,
        metadata=definition_metadata(INVENTORY),
        code_version=_CODE_VERSION,
        retry_policy=retry,
        pool=API_POOL,
        check_specs=[
            dg.AssetCheckSpec(
                "source_is_fresh",
                asset="image_inventory",
                description="The inventory file was modified within IMAGE_SNAPSHOTS_INVENTORY_MAX_AGE_HOURS.",
            ),
            dg.AssetCheckSpec(
                "ids_are_usable",
                asset="image_inventory",
                description="Every row of the inventory has a UUID and a project that is configured.",
            ),
            dg.AssetCheckSpec(
                "list_is_whole",
                asset="image_inventory",
                description="The API's own list, when it is the inventory, showed as many images as it counts.",
            ),
            dg.AssetCheckSpec(
                "inventory_is_whole",
                asset="image_inventory",
                description="The inventory shows the images known on the last complete day, but for the share of "
                "IMAGE_SNAPSHOTS_MAX_SHRUNK_RATIO; nothing counts as gone for not being in one that is not whole.",
            ),
        ],
    )
    def image_inventory(context: dg.AssetExecutionContext, day: dg.ResourceParam[DayResource]) -> dg.MaterializeResult:
        with day.step(context) as today:
            check_inputs(today.settings)
            taken = take_inventory(today)
        facts = taken.facts
        return dg.MaterializeResult(
            metadata=file_metadata(today.lake, taken.file) | inventory_metadata(facts),
            check_results=[
                dg.AssetCheckResult(check_name="source_is_fresh", passed=not taken.is_stale, severity=_WARN),
                dg.AssetCheckResult(
                    check_name="ids_are_usable",
                    passed=not (facts.blank or facts.invalid or facts.unknown_project),
                    severity=_WARN,
                    metadata={"blank": facts.blank, "invalid": facts.invalid, "unknown_project": facts.unknown_project},
                ),
                dg.AssetCheckResult(
                    check_name="list_is_whole",
                    passed=facts.shortfall == 0,
                    severity=_WARN,
                    metadata={"shortfall": facts.shortfall},
                ),
                dg.AssetCheckResult(
                    check_name="inventory_is_whole",
                    passed=facts.is_whole,
                    severity=_WARN,
                    description=inventory_warning(facts),
                    metadata={"known": facts.known, "missing": facts.missing, "added": facts.added},
                ),
            ],
        )

    @dg.asset(
        description="Evidence: the API's answer for every inventory id, byte for byte, errors included.",
        group_name="responses",
        kinds={"parquet", "rest"},
        owners=OWNERS,
        partitions_def=grid,
        deps=[image_inventory],
        metadata=definition_metadata(RESPONSES),
        code_version=_CODE_VERSION,
        retry_policy=retry,
        pool=API_POOL,
        check_specs=[
            dg.AssetCheckSpec(
                "is_complete",
                asset="image_responses",
                description="Every id has an answer of the API; a day with failed ids is published as incomplete.",
            ),
            dg.AssetCheckSpec(
                "list_was_read",
                asset="image_responses",
                description="The API's own list could be read, if that was wanted (IMAGE_SNAPSHOTS_RECONCILE), and "
                "showed as many images as it counts.",
            ),
            dg.AssetCheckSpec(
                "notebooks_were_read",
                asset="image_responses",
                description="The project's notebooks could all be read, if that was wanted (IMAGE_SNAPSHOTS_USAGE).",
            ),
        ],
    )
    def image_responses(context: dg.AssetExecutionContext, day: dg.ResourceParam[DayResource]) -> dg.MaterializeResult:
        with day.step(context) as today:
            fetched = fetch_answers(today, day.reporter.listener(context.log))

        def read(check: str, error: str | None) -> dg.AssetCheckResult:
            # Not as description, which the UI reads as Markdown: the error may quote what the API sent.
            why = {} if error is None else {"error": dg.MetadataValue.text(visible(error))}
            return dg.AssetCheckResult(check_name=check, passed=error is None, severity=_WARN, metadata=why)

        return dg.MaterializeResult(
            metadata=file_metadata(today.lake, fetched.file) | fetch_metadata(fetched.facts),
            check_results=[
                dg.AssetCheckResult(
                    check_name="is_complete",
                    passed=fetched.facts.failed == 0,
                    severity=_WARN,
                    metadata={"failed": fetched.facts.failed},
                ),
                read("list_was_read", fetched.facts.list_error or short_list(fetched.facts)),
                read("notebooks_were_read", fetched.facts.notebooks_error),
            ],
        )

    def derived(table: Table, description: str) -> dg.AssetSpec:
        return dg.AssetSpec(
            table.name,
            description=description,
            group_name="snapshot",
            kinds={"parquet", "pandas"},
            owners=OWNERS,
            deps=[image_responses],
            metadata=definition_metadata(table),
            code_version=_CODE_VERSION,
            freshness_policy=freshness,
        )

    @dg.multi_asset(
        name="publish_images",
        partitions_def=grid,
        # They are published together; one that is asked for alone is shown alone.
        can_subset=True,
        specs=[
            derived(
                IMAGES, "The snapshot: one row per image that the API described on that day. Publishes the whole day."
            ),
            derived(IMAGE_VALUES, "The list fields of `images`, one row per element, in the API's order."),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "ids_are_unique", asset=IMAGES.name, description="One row per id; checked before publishing."
            ),
            dg.AssetCheckSpec(
                "no_new_fields", asset=IMAGES.name, description="The API sent no field outside the contract."
            ),
            dg.AssetCheckSpec(
                "no_new_values",
                asset=IMAGES.name,
                description="The API sent no enumeration value outside the contract.",
            ),
            dg.AssetCheckSpec(
                "no_anomalies", asset=IMAGES.name, description="Nothing had to be repaired or left unread."
            ),
        ],
    )
    def publish_images(
        context: dg.AssetExecutionContext, day: dg.ResourceParam[DayResource]
    ) -> Iterator[dg.MaterializeResult]:
        with day.step(context) as today:
            # Again, because a fetch may take hours, and a rebuild begins here.
            check_inputs(today.settings)
            result = publish_day(today)
        manifest, derivation = result.manifest, result.derivation

        def none_of(check: str, counts: dict[str, int]) -> dg.AssetCheckResult:
            found = {"found": counts_metadata(counts)} if counts else {}
            return dg.AssetCheckResult(check_name=check, passed=not counts, severity=_WARN, metadata=found)

        images = dg.MaterializeResult[Any](
            asset_key=IMAGES.name,
            metadata={
                **file_metadata(today.lake, manifest.files[IMAGES.name]),
                "is_complete": manifest.is_complete,
                "is_sandbox": manifest.fetch.is_sandbox,
                "rebuilt": manifest.rebuilt,
                **{f"outcome_{name}": count for name, count in manifest.fetch.outcomes.items()},
                "anomalies": counts_metadata(derivation.anomalies),
                "rows": rows_metadata(derivation.preview),
                "manifest": dg.MetadataValue.path(str(today.lake.manifest(today.partition))),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="ids_are_unique", passed=True, metadata={"ids": manifest.files[IMAGES.name].rows}
                ),
                none_of("no_new_fields", derivation.unknown_fields),
                none_of("no_new_values", derivation.unknown_values),
                none_of("no_anomalies", derivation.anomalies),
            ],
        )
        values = dg.MaterializeResult[Any](
            asset_key=IMAGE_VALUES.name, metadata=file_metadata(today.lake, manifest.files[IMAGE_VALUES.name])
        )
        yield from selected(context, [images, values])

    return [image_inventory, image_responses, publish_images]
