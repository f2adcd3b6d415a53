"""The graph is whole: what is upstream of our tables, and which column comes from which field."""

import datetime as dt

import dagster as dg
import pytest

from assets.build import build_definitions
from assets.partitions import partition_key
from assets.upstream import OBSERVE_JOB
from pipelines.lake.layout import Partition
from pipelines.settings import Settings
from pipelines.tables import IMAGES

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION = Partition(TODAY, "default")


def specs(**settings):
    return {spec.key.path[-1]: spec for spec in build_definitions(Settings(**settings)).resolve_all_asset_specs()}


def upstream_of(spec):
    return {dep.asset_key.path[-1] for dep in spec.deps}


def test_what_the_pipeline_reads_is_upstream():
    found = specs()
    assert upstream_of(found["image_inventory"]) == {"inventory_source", "modelarts_api"}
    assert upstream_of(found["image_responses"]) == {"image_inventory", "modelarts_api", "registry", "bills"}
    assert "price_book" in upstream_of(found["image_costs"])
    assert "audit_rule_files" in upstream_of(found["audit_rules"])
    # Every asset but these has something before it.
    begin = {name for name, spec in found.items() if not upstream_of(spec)}
    assert begin == {"inventory_source", "modelarts_api", "registry", "bills", "price_book", "audit_rule_files"}


def test_every_column_of_images_has_a_lineage():
    found = specs()
    lineage = found["images"].metadata["dagster/column_lineage"].deps_by_column
    assert set(lineage) == set(IMAGES.schema.names)

    def sources(column):
        return {(dep.asset_key.path[-1], dep.column_name) for dep in lineage[column]}

    body = ("image_responses", "body")
    assert sources("visibility") == {("modelarts_api", "visibility"), body}
    assert sources("size_bytes") == {("modelarts_api", "size"), body}
    assert sources("supports_gpu") == {
        ("modelarts_api", "resource_categories"),
        ("modelarts_api", "support_res_categories"),
        body,
    }
    assert sources("id") == {("image_responses", "id")}
    assert sources("response_sha256") == {("image_responses", "body_sha256")}
    # Every named column exists upstream.
    columns = {
        name: {c.name for c in spec.metadata["dagster/column_schema"].columns}
        for name, spec in found.items()
        if "dagster/column_schema" in spec.metadata
    }
    for name, spec in found.items():
        for deps in getattr(spec.metadata.get("dagster/column_lineage"), "deps_by_column", {}).values():
            for dep in deps:
                upstream = dep.asset_key.path[-1]
                assert upstream == "inventory_source" or dep.column_name in columns[upstream], (name, dep)
    history = found["image_history"].metadata["dagster/column_lineage"].deps_by_column
    assert [(dep.asset_key.path[-1], dep.column_name) for dep in history["visibility"]] == [("images", "visibility")]


@pytest.mark.parametrize(
    ("warehouse", "name"),
    [
        (None, "warehouse.main.images"),
        ("/data/lake-copy.duckdb", "lake-copy.main.images"),
        ("postgresql://user:secret@host/finops", "finops.public.images"),
        ("postgresql://user@host/finops?options=-csearch_path%3Dimages", "finops.images.images"),
        ("postgresql://user@host", "user.public.images"),
    ],
)
def test_table_name_is_that_of_the_warehouse(warehouse, name):
    assert specs(warehouse=warehouse)["images"].metadata["dagster/table_name"] == name


def test_no_warehouse_means_no_table_name():
    assert "dagster/table_name" not in specs(lake="s3://bucket/lake")["images"].metadata


def test_assets_link_to_their_code_and_have_the_stated_owners():
    found = specs(owners="ann@example.com, team:finops")
    (reference,) = found["images"].metadata["dagster/code_references"].code_references
    assert reference.file_path.endswith("assets/daily_snapshot.py")
    assert found["images"].owners == ["ann@example.com", "team:finops"]


def test_code_version_is_that_of_the_code_that_makes_the_table():
    found = specs()
    versions = {name: found[name].code_version for name in ("image_history", "image_costs", "audit_rules", "images")}
    assert len(set(versions.values())) == 4
    assert found["audit_rules"].code_version == found["audit_findings"].code_version


@pytest.mark.parametrize("listed", [False, True], ids=["file", "image list"])
def test_observed_inventory_has_a_hash_of_what_was_read(listed, start_sandbox, tmp_path, monkeypatch):
    sandbox = start_sandbox(size=5, inventory_file=tmp_path / "inventory.csv")
    for variable, value in sandbox.env.items():
        monkeypatch.setenv(variable, value)
    if listed:
        monkeypatch.delenv("IMAGE_SNAPSHOTS_INVENTORY")
    job = build_definitions(Settings()).resolve_job_def(OBSERVE_JOB)

    def observed(partition=PARTITION):
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                instance=instance, partition_key=partition_key(partition), raise_on_error=False
            )
            if not result.success:
                return result.get_step_failure_events()[0].step_failure_data.user_failure_data.description
            record = instance.get_latest_data_version_record(
                dg.AssetKey("inventory_source"), partition_key=str(partition_key(partition))
            )
            return record.asset_observation.data_version

    first = observed()
    assert len(first) == 64
    assert observed() == first
    if not listed:
        lines = (tmp_path / "inventory.csv").read_text().splitlines()
        (tmp_path / "inventory.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
        assert observed() == first
        (tmp_path / "inventory.csv").write_text("\n".join(lines[:-1]) + "\n")
        assert observed() != first
    yesterday = Partition(TODAY - dt.timedelta(days=1), "default")
    assert observed(yesterday).startswith(f"{yesterday.date} is over")


def test_catalog_is_loaded_beside_the_warehouse_if_one_is_set():
    assert "catalog_tables" not in specs()
    found = specs(catalog="./catalog")
    assert upstream_of(found["catalog_tables"]) == upstream_of(found["warehouse_tables"])
    definitions = build_definitions(Settings(catalog="./catalog"))
    loaded = definitions.resolve_job_def("load_days").asset_layer.executable_asset_keys
    assert {key.path[-1] for key in loaded} == {"catalog_tables", "warehouse_tables"}
    # A lake in a bucket has no warehouse unless one is set, but may have a catalog.
    alone = specs(lake="s3://bucket/lake", catalog="lakehouse")
    assert {"catalog_tables", "warehouse_tables"} & set(alone) == {"catalog_tables"}
