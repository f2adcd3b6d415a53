"""Suppressions that cannot hold for anything, because what they name is nowhere: most often a slip of the pen."""

import datetime as dt

import pyarrow.compute as pc

from pipelines.derive.audit import Suppression, read_rules, read_suppressions
from pipelines.lake.layout import Lake
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import LakePath
from pipelines.settings import Settings
from pipelines.tables import AUDIT_FINDINGS, IMAGE_HISTORY

_BATCH_ROWS = 65_536


def suppression_warnings(lake: Lake, settings: Settings, today: dt.date) -> list[str]:
    """A sentence for each suppression that has not ended and names a rule, image or namespace that there is not.

    An image is one that any project of the lake has had, or that a finding is about.

    Raises:
        ConfigurationError: the suppressions or the rules cannot be read.
        StorageError: the lake cannot be read.
    """
    if settings.suppressions is None:
        return []
    entries = read_suppressions(settings.suppressions)
    rules = {rule.name for rule in read_rules(settings.audit_rules)}
    alive = [entry for entry in entries if entry.until >= today]
    ids = {entry.id for entry in alive if entry.id is not None}
    namespaces = {entry.namespace for entry in alive if entry.namespace is not None}
    for path in [*lake.contents.project_files_of(IMAGE_HISTORY.name), *_last_findings(lake)]:
        if not ids and not namespaces:
            break
        columns = ["id", "namespace"] if path.stem == IMAGE_HISTORY.name else ["id"]
        for batch in read_batches(path, _BATCH_ROWS, columns):
            ids -= set(pc.unique(batch["id"]).to_pylist())
            if "namespace" in columns:
                namespaces -= set(pc.unique(batch["namespace"]).to_pylist())
    warnings = []
    for number, entry in enumerate(entries, start=1):
        if entry.until < today:
            continue
        warnings += [
            f"Entry {number} of the suppressions file {settings.suppressions} suppresses nothing: {reason}."
            for reason in _reasons(entry, rules, ids, namespaces)
        ]
    return warnings


def _reasons(entry: Suppression, rules: set[str], no_ids: set[str], no_namespaces: set[str]) -> list[str]:
    reasons = []
    if entry.rule not in rules:
        reasons.append(f"there is no rule {entry.rule!r}")
    if entry.id in no_ids:
        reasons.append(f"the lake knows no image {entry.id!r}")
    if entry.namespace in no_namespaces:
        reasons.append(f"the lake knows no image in a namespace {entry.namespace!r}")
    return reasons


def _last_findings(lake: Lake) -> list[LakePath]:
    """The newest findings of each project: of images that are in no history, too."""
    return list({day.project: path for day, path in lake.contents.files_of(AUDIT_FINDINGS.name).items()}.values())
