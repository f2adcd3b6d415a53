"""What all assets share: owners, checks, and the version of the code that makes a table."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from pipelines.fingerprint import fingerprint
from pipelines.tables import SCHEMA_VERSION

OWNERS = ["team:platform"]


def made_by(*places: str) -> str:
    """The code version of an asset: the schema's, and the fingerprint of the code in `places` of `pipelines` or `sql`.

    Dagster shows tables that another version made as outdated.
    """
    return f"{SCHEMA_VERSION}+{fingerprint('pipelines/tables', *places)}"


def check_specs(asset: str, checks: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    """The checks of an asset: name -> what is true if the check passes."""
    return [dg.AssetCheckSpec(name, asset=asset, description=meaning) for name, meaning in checks.items()]


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
