"""What all assets share: checks, the version of the code that makes a table, and early APIs of Dagster.

An API that Dagster still calls deprecated, beta or preview is used only if it is listed here, with its reason. The
tests, where every other warning is an error, have the same list (pyproject.toml).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from pipelines.fingerprint import fingerprint
from pipelines.settings import Settings
from pipelines.tables import INVENTORY, RESPONSES, SCHEMA_VERSION
from pipelines.warehouse.ddl import WAREHOUSE_TABLES
from pipelines.warehouse.loading import qualified_schema

# The assets whose table has another name.
_TABLES_OF_STEPS = {"image_inventory": INVENTORY.name, "image_responses": RESPONSES.name}

# Preview: without it, results of different days and projects overwrite each other in the UI.
warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)
# Beta: the only way to link an asset in the UI to the code that makes it.
_LINKS = "Function `with_source_code_references`|Class `(LocalFileCodeReference|CodeReferencesMetadataValue)`"
warnings.filterwarnings("ignore", _LINKS, dg.BetaWarning)
# Beta: the only source that the UI can observe. External assets cannot run code.
warnings.filterwarnings("ignore", "Function `multi_observable_source_asset`", dg.BetaWarning)


def made_by(*places: str) -> str:
    """The code version of an asset: the schema's, and the fingerprint of the code in `places` of `pipelines` or `sql`.

    Dagster shows tables that another version made as outdated.
    """
    return f"{SCHEMA_VERSION}+{fingerprint('pipelines/tables', *places)}"


def check_specs(
    asset: str, checks: Mapping[str, str], partitions: dg.PartitionsDefinition[Any]
) -> list[dg.AssetCheckSpec]:
    """The checks of an asset: name -> what is true if the check passes. Each partition has results of its own."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=meaning, partitions_def=partitions)
        for name, meaning in checks.items()
    ]


def check_result(
    asset: str, name: str, passed: bool, metadata: Mapping[str, Any] | None = None, description: str | None = None
) -> dg.AssetCheckResult:
    """The result of an asset's check; a failed check is a warning."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
    )


def with_shared_facts(assets: Sequence[dg.AssetsDefinition], settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets with what the settings say of each, owners and its name in the warehouse, and links to the code."""
    url = settings.warehouse.get_secret_value() if settings.warehouse else None
    schema = qualified_schema(url) if settings.loads_warehouse else None

    def shared(spec: dg.AssetSpec) -> dg.AssetSpec:
        table = _TABLES_OF_STEPS.get(spec.key.path[-1], spec.key.path[-1])
        name = {"dagster/table_name": f"{schema}.{table}"} if schema and table in WAREHOUSE_TABLES else {}
        return spec.replace_attributes(owners=settings.owner_names, metadata={**spec.metadata, **name})

    found = dg.with_source_code_references(dg.map_asset_specs(shared, assets))
    return [asset for asset in found if isinstance(asset, dg.AssetsDefinition)]
