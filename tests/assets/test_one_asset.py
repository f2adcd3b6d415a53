"""One asset materialised alone, such as by `dagster asset materialize --select images`."""

import datetime as dt

import dagster as dg
import pytest
from proved_days import A, B, proved_day, publish_proved

from assets.build import build_definitions
from assets.partitions import partition_key
from pipelines.derive.days import derive_days
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.manifests import published
from pipelines.settings import Settings

DATE = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("asset", "checks"),
    [
        ("images", {"ids_are_unique", "no_new_fields", "no_new_values", "no_anomalies", "scope_is_whole"}),
        ("image_values", set()),
        ("image_tags", set()),
        ("image_costs", {"everything_is_priced"}),
    ],
)
def test_materialise_one_asset_of_a_step_records_only_that_asset(asset, checks, tmp_path):
    day = proved_day(str(DATE))
    before = publish_proved(day, {A: "PUBLIC", B: "PRIVATE"})
    if asset == "image_costs":
        derive_days(day)
    definitions = build_definitions(Settings(lake="lake", usage="notebooks"))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [asset for asset in definitions.assets if isinstance(asset, dg.AssetsDefinition)],
            selection=[asset],
            partition_key=partition_key(day.partition),
            resources=definitions.resources,
            instance=instance,
        )
    assert result.success
    assert [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()] == [asset]
    assert {check.check_name for check in result.get_asset_check_evaluations()} == checks
    if asset == "image_costs":
        assert read_derived_manifest(day.lake, day.partition) is not None
        assert published(day.lake, day.partition) == before
    else:
        assert published(day.lake, day.partition).rebuilt


def test_materialise_a_step_without_selection_records_all_its_assets(tmp_path):
    day = proved_day(str(DATE))
    publish_proved(day, {A: "PUBLIC", B: "PRIVATE"})
    job = build_definitions(Settings(lake="lake")).resolve_job_def("republish_images")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, partition_key=partition_key(day.partition))
    shown = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert shown == {"images", "image_values", "image_tags"}
    assert len(result.get_asset_check_evaluations()) == 5
