"""The assets of the daily snapshot: image_inventory -> image_responses -> images, image_values, image_tags.

Each step stages its table in the lake; the last one publishes the whole day at once. So readers see a day from the
materialisation of `images` on.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.common import check_result, check_specs, made_by
from assets.metadata import (
    counts_metadata,
    definition_metadata,
    fetch_metadata,
    file_metadata,
    inventory_metadata,
    rows_metadata,
    selected,
)
from assets.resources import RunResource
from assets.upstream import BILLS, INVENTORY_SOURCE, MODELARTS_API, REGISTRY
from pipelines.lake.manifests import inventory_warning, outside_scope, short_list, unobserved_usage
from pipelines.plain_text import visible
from pipelines.preflight import check_inputs
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, INVENTORY, RESPONSES, Table

API_POOL = "modelarts_api"
_INVENTORY, _RESPONSES = "image_inventory", "image_responses"

_INVENTORY_CHECKS = {
    "source_is_fresh": "The inventory file was modified within IMAGE_SNAPSHOTS_INVENTORY_MAX_AGE_HOURS.",
    "ids_are_usable": "Every row of the inventory has a UUID and a configured project.",
    "list_is_whole": "If the image list is the inventory, it showed as many images as it counts.",
    "inventory_is_whole": "The inventory has the images known on the last complete day, except for at most the share "
    "IMAGE_SNAPSHOTS_MAX_SHRUNK_RATIO. If not, images missing from it do not count as gone.",
}
_RESPONSES_CHECKS = {
    "is_complete": "Every id has a response of the API; a day with failed ids is published as incomplete.",
    "list_was_read": "The image list was read, if wanted (IMAGE_SNAPSHOTS_RECONCILE), and "
    "showed as many images as it counts.",
    "usage_is_observed": "All sources of usage that are wanted (IMAGE_SNAPSHOTS_USAGE) could be read as a whole.",
}
_IMAGES_CHECKS = {
    "ids_are_unique": "One row per id; checked before publishing.",
    "no_new_fields": "The API sent no undocumented field.",
    "no_new_values": "The API sent no undocumented enumeration value.",
    "no_anomalies": "No value was repaired or unreadable.",
    "scope_is_whole": "No response names a workspace outside of those that were read (IMAGE_SNAPSHOTS_WORKSPACES).",
}


def image_inventory_asset(grid: dg.MultiPartitionsDefinition, retry: dg.RetryPolicy | None) -> dg.AssetsDefinition:
    """Build the asset of the inventory's ids."""

    @dg.asset(
        description="The project's image ids from the inventory on that day, cleaned and counted.",
        group_name="inventory",
        kinds={"parquet"},
        partitions_def=grid,
        deps=[INVENTORY_SOURCE, MODELARTS_API],
        metadata=definition_metadata(INVENTORY),
        code_version=made_by("pipelines/inventory", "pipelines/snapshot/absence.py", "pipelines/snapshot/scope.py"),
        retry_policy=retry,
        pool=API_POOL,
        check_specs=check_specs(_INVENTORY, _INVENTORY_CHECKS, grid),
    )
    def image_inventory(context: dg.AssetExecutionContext, runs: dg.ResourceParam[RunResource]) -> dg.MaterializeResult:
        with runs.step(context) as run:
            check_inputs(run.settings)
            taken = take_inventory(run)
        facts = taken.facts
        unusable = {"blank": facts.blank, "invalid": facts.invalid, "unknown_project": facts.unknown_project}
        seen = {"known": facts.known, "missing": facts.missing, "added": facts.added}
        return dg.MaterializeResult(
            metadata=file_metadata(run.lake, taken.file) | inventory_metadata(facts),
            check_results=[
                check_result(_INVENTORY, "source_is_fresh", not taken.is_stale),
                check_result(_INVENTORY, "ids_are_usable", not any(unusable.values()), unusable),
                check_result(_INVENTORY, "list_is_whole", facts.shortfall == 0, {"shortfall": facts.shortfall}),
                check_result(_INVENTORY, "inventory_is_whole", facts.is_whole, seen, inventory_warning(facts)),
            ],
        )

    return image_inventory


def image_responses_asset(grid: dg.MultiPartitionsDefinition, retry: dg.RetryPolicy | None) -> dg.AssetsDefinition:
    """Build the asset of the API's responses."""

    @dg.asset(
        description="Evidence: the API's response for every inventory id, byte for byte, including errors.",
        group_name="responses",
        kinds={"parquet", "rest"},
        partitions_def=grid,
        deps=[_INVENTORY, MODELARTS_API, REGISTRY, BILLS],
        metadata=definition_metadata(RESPONSES),
        code_version=made_by(
            "pipelines/cloud",
            "pipelines/snapshot/sources",
            *(f"pipelines/snapshot/{name}.py" for name in ("fetch", "gathering", "image_list", "incremental", "scope")),
        ),
        retry_policy=retry,
        pool=API_POOL,
        check_specs=check_specs(_RESPONSES, _RESPONSES_CHECKS, grid),
    )
    def image_responses(context: dg.AssetExecutionContext, runs: dg.ResourceParam[RunResource]) -> dg.MaterializeResult:
        with runs.step(context) as run:
            fetched = fetch_responses(run, runs.reporter.listener(context.log))
        facts = fetched.facts
        return dg.MaterializeResult(
            metadata=file_metadata(run.lake, fetched.file) | fetch_metadata(facts),
            check_results=[
                check_result(_RESPONSES, "is_complete", facts.failed == 0, {"failed": facts.failed}),
                _read_check("list_was_read", facts.list_error or short_list(facts)),
                _read_check("usage_is_observed", _sentences(unobserved_usage(facts))),
            ],
        )

    return image_responses


def _sentences(errors: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in errors.items())


def _read_check(name: str, error: str | None, asset: str = _RESPONSES) -> dg.AssetCheckResult:
    # Not as a description, which the UI renders as Markdown: the error may quote what the API sent.
    why = {"error": dg.MetadataValue.text(visible(error))} if error else {}
    return check_result(asset, name, not error, why)


def images_assets(grid: dg.MultiPartitionsDefinition, freshness: dg.FreshnessPolicy) -> dg.AssetsDefinition:
    """Build the assets of the snapshot itself, which are published together."""

    def spec(table: Table, description: str) -> dg.AssetSpec:
        return dg.AssetSpec(
            table.name,
            description=description,
            group_name="snapshot",
            kinds={"parquet", "pandas"},
            deps=[_RESPONSES],
            metadata=definition_metadata(table),
            code_version=made_by(
                "pipelines/bodies",
                *(f"pipelines/snapshot/{name}.py" for name in ("build_process", "normalise", "publish")),
            ),
            freshness_policy=freshness,
        )

    @dg.multi_asset(
        name="publish_images",
        partitions_def=grid,
        # They are published together, but may be selected and shown separately.
        can_subset=True,
        specs=[
            spec(
                IMAGES, "The snapshot: one row per image that the API described on that day. Publishes the whole day."
            ),
            spec(IMAGE_VALUES, "The list fields of `images`: one row per element, in the API's order."),
            spec(IMAGE_TAGS, "The cloud tags of `images`, one row per tag."),
        ],
        check_specs=check_specs(IMAGES.name, _IMAGES_CHECKS, grid),
    )
    def publish_images(
        context: dg.AssetExecutionContext, runs: dg.ResourceParam[RunResource]
    ) -> Iterator[dg.MaterializeResult]:
        with runs.step(context) as run:
            # Check again: a fetch may take hours, and a rebuild begins here.
            check_inputs(run.settings)
            result = publish_snapshot(run)
        manifest, built = result.manifest, result.built
        images = dg.MaterializeResult[Any](
            asset_key=IMAGES.name,
            metadata={
                **file_metadata(run.lake, manifest.files[IMAGES.name]),
                "is_complete": manifest.is_complete,
                "is_sandbox": manifest.fetch.is_sandbox,
                "rebuilt": manifest.rebuilt,
                **{f"outcome_{name}": count for name, count in manifest.fetch.outcomes.items()},
                "anomalies": counts_metadata(built.anomalies),
                "rows": rows_metadata(result.preview),
                "manifest": dg.MetadataValue.path(str(run.lake.manifest(run.partition))),
            },
            check_results=[
                check_result(IMAGES.name, "ids_are_unique", True, {"ids": manifest.files[IMAGES.name].rows}),
                _none_of("no_new_fields", built.unknown_fields),
                _none_of("no_new_values", built.unknown_values),
                _none_of("no_anomalies", built.anomalies),
                _read_check("scope_is_whole", outside_scope(manifest.fetch), IMAGES.name),
            ],
        )
        others = [
            dg.MaterializeResult[Any](
                asset_key=table.name, metadata=file_metadata(run.lake, manifest.files[table.name])
            )
            for table in (IMAGE_VALUES, IMAGE_TAGS)
        ]
        yield from selected(context, [images, *others])

    return publish_images


def _none_of(name: str, counts: Mapping[str, int]) -> dg.AssetCheckResult:
    return check_result(IMAGES.name, name, not counts, {"found": counts_metadata(counts)} if counts else None)
