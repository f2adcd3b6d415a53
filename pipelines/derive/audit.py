"""The audit: rules that anyone can add as a SQL file, what they find on a day, and the life of each finding.

What a rule finds is its SQL under `sql/audit/`; what becomes of a finding from day to day is
`sql/derive/audit_findings.sql`. Reading rules and suppressions, and applying a rule so that it can neither harm nor
stop anything else, belong here.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from pipelines.derive.analysis import Analysis, tag_keys
from pipelines.derive.rule_process import RuleFile, RuleProcess, as_rule_file, rule_scratch, small_rule_file
from pipelines.derive.rule_worker import RuleError
from pipelines.derive.storage import load_scope
from pipelines.engine.sql_files import read_sql
from pipelines.errors import ConfigurationError
from pipelines.inputs import local_files
from pipelines.inputs.text_files import decoded, parse_toml
from pipelines.lake.manifests import FileFacts, Manifest
from pipelines.lake.storage import LakePath
from pipelines.memory import give_back_memory
from pipelines.settings import ROOT, Settings
from pipelines.tables import (
    AUDIT_FINDINGS,
    AUDIT_RULES,
    IMAGE_CHANGES,
    IMAGE_HISTORY,
    IMAGE_RECONCILIATION,
    IMAGE_STORAGE,
    IMAGE_USAGE,
    KNOWN_VALUES,
    LIST_PAGES,
    REGISTRY_ONLY,
    REGISTRY_PAGES,
    RESPONSES,
    SEVERITIES,
    TABLES,
    Table,
)

RULES = ROOT / "sql" / "audit"

_REQUIRED = ("id", "title", "severity", "why", "do")
_FIELD = re.compile(rf"--\s*({'|'.join(_REQUIRED)}|needs):(.*)")
# An id is part of a relation's name, and of what finding ids are made from.
_ID = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NEEDS = ("list", "usage", "registry")

_FOUND = pa.schema([("rule", pa.string()), ("id", pa.string()), ("evidence", pa.string())])
_RULES = pa.schema(
    [
        *((name, pa.string()) for name in ("rule", "title", "severity", "why", "what_to_do", "error", "sql_sha256")),
        ("is_decided", pa.bool_()),
        ("needs_registry", pa.bool_()),
    ]
)
_SUPPRESSIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("rule", "id", "namespace")),
        ("until", pa.date32()),
        ("reason", pa.string()),
    ]
)


# The relations with images by `id` that findings are made from.
_FINDING_SOURCES = (
    "found",
    "previous_findings",
    "current_images",
    "image_owners",
    IMAGE_RECONCILIATION.name,
    IMAGE_STORAGE.name,
    IMAGE_HISTORY.name,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as its file states it; `error` says why it cannot be applied, and then what is missing is None.

    `needs`: what a day must have read before a finding of the rule can be resolved: list, usage, registry.
    """

    name: str
    sql_sha256: str | None
    title: str | None = None
    severity: str | None = None
    why: str | None = None
    what_to_do: str | None = None
    needs: tuple[str, ...] = ()
    sql: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The written tables and what they hold.

    `open_by_severity` counts the findings that are new or open and not suppressed, for each of `SEVERITIES`, and `new`
    those of them that are new. `suppressed` counts those that are new or open and suppressed; `resolved` the findings
    of the last complete day that are no more. `rule_errors`: why rules could not be applied, by rule.
    """

    files: tuple[FileFacts, ...]
    open_by_severity: dict[str, int]
    new: int
    resolved: int
    suppressed: int
    rule_errors: dict[str, str]


def derive_audit_findings(analysis: Analysis) -> AuditResult:
    """Apply the rules and write `audit_rules` and `audit_findings` of the day; a rule that fails stops no other.

    Raises:
        ConfigurationError: the directory of further rules or the file of suppressions cannot be read or is wrong.
        StorageError: the lake cannot be written.
    """
    settings = analysis.run.settings
    suppressions = read_suppressions(settings.suppressions) if settings.suppressions else []
    with rule_scratch() as scratch:
        rules = _apply_rules(analysis, read_rules(settings.audit_rules), scratch)
        analysis.engine.load("rules", _rules_table(rules, analysis.manifest))
        analysis.engine.load(
            "suppressions", pa.Table.from_pylist([entry.model_dump() for entry in suppressions], schema=_SUPPRESSIONS)
        )
        analysis.load_today(IMAGE_RECONCILIATION)
        analysis.load_today(IMAGE_STORAGE)
        load_scope(analysis.engine, analysis.manifest.fetch)
        analysis.load_derived(AUDIT_FINDINGS, "previous_findings", analysis.before)
        findings = analysis.write_by_rule(AUDIT_FINDINGS, read_sql("derive/audit_findings.sql"), _FINDING_SOURCES)
    analysis.load_today(AUDIT_FINDINGS, "findings")
    files = (analysis.write(AUDIT_RULES, read_sql("derive/audit_rules.sql")), findings)
    return _summary(analysis, files, {rule.name: rule.error for rule in rules if rule.error is not None})


def _summary(analysis: Analysis, files: tuple[FileFacts, ...], rule_errors: dict[str, str]) -> AuditResult:
    counts = analysis.engine.read(
        "SELECT severity, state, suppressed_until IS NOT NULL AS is_suppressed, COUNT(*) AS findings "
        "FROM findings GROUP BY severity, state, is_suppressed"
    ).to_pylist()
    alive = [count for count in counts if count["state"] != "resolved"]
    seen = [count for count in alive if not count["is_suppressed"]]

    def total(of: list[dict[str, int]]) -> int:
        return sum(count["findings"] for count in of)

    return AuditResult(
        files=files,
        open_by_severity={name: total([c for c in seen if c["severity"] == name]) for name in SEVERITIES},
        new=total([c for c in seen if c["state"] == "new"]),
        resolved=total([c for c in counts if c["state"] == "resolved"]),
        suppressed=total([c for c in alive if c["is_suppressed"]]),
        rule_errors=rule_errors,
    )


# --- rules ----------------------------------------------------------------------------------------------------------


def read_rules(further: Path | None = None) -> list[Rule]:
    """The rules that ship and those of a further directory, by file name; what is wrong with one is its `error`.

    Raises:
        ConfigurationError: the further directory cannot be read.
    """
    paths = local_files.matching(RULES, "*.sql")
    if further is not None:
        try:
            if not local_files.exists(further):
                raise ConfigurationError(
                    f"There is no directory {further}: set IMAGE_SNAPSHOTS_AUDIT_RULES to the directory of your rules."
                )
            paths += local_files.matching(further, "*.sql")
        except OSError as failure:
            raise ConfigurationError(
                f"The audit rules at {failure.filename or further} cannot be read: {failure.strerror}. Let this user "
                "read them, or set IMAGE_SNAPSHOTS_AUDIT_RULES to the directory of your rules."
            ) from failure
    rules: dict[str, Rule] = {}
    for path in paths:
        rule = _read_rule(path)
        if rule.name in rules:
            error = f"The id {rule.name} is taken by another rule: give this one an id and a file name of its own."
            rule = Rule(f"{path.parent.name}/{path.name}", rule.sql_sha256, error=error)
        rules[rule.name] = rule
    return list(rules.values())


def _read_rule(path: Path) -> Rule:
    """A rule that cannot be read goes by its file's name, as it did while it could."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return Rule(path.stem, None, error=f"The file cannot be read: {error.strerror}.")
    rule = Rule(path.stem, hashlib.sha256(content).hexdigest())
    try:
        text = decoded(content)
    except ValueError as reason:
        return replace(rule, error=f"The file {reason}.")
    fields, repeated = _read_header(text)
    severity = fields.get("severity")
    rule = replace(
        rule,
        title=fields.get("title"),
        severity=severity if severity in SEVERITIES else None,
        why=fields.get("why"),
        what_to_do=fields.get("do"),
        needs=tuple(need.strip() for need in fields["needs"].split(",")) if "needs" in fields else (),
        sql=text,
    )
    try:
        _check_header(path.stem, fields, repeated, rule)
    except RuleError as error:
        return replace(rule, error=str(error))
    return rule


def _read_header(text: str) -> tuple[dict[str, str], list[str]]:
    """The header's fields, lines that continue one joined to it, and the names of those stated twice."""
    fields: dict[str, str] = {}
    repeated = []
    name = None
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if found := _FIELD.fullmatch(line):
            name = found[1]
            if name in fields:
                repeated.append(name)
            fields[name] = found[2].strip()
        elif name is not None and (more := line.removeprefix("--").strip()):
            fields[name] = f"{fields[name]} {more}".strip()
        else:
            name = None
    return {name: value for name, value in fields.items() if value}, repeated


def _check_header(stem: str, fields: dict[str, str], repeated: list[str], rule: Rule) -> None:
    if lacking := [name for name in _REQUIRED if name not in fields]:
        raise RuleError(f"The header lacks {', '.join(lacking)}: begin the file with lines such as `-- title: ...`.")
    if repeated:
        raise RuleError(f"The header states {', '.join(repeated)} twice.")
    if fields["id"] != stem:
        raise RuleError(f"The header's id is {fields['id']}: name the file {fields['id']}.sql.")
    if not _ID.fullmatch(stem):
        raise RuleError("The id must be lower-case letters, digits and _ only, and begin with a letter.")
    if rule.severity is None:
        raise RuleError(f"The severity {fields['severity']} is not one of {', '.join(SEVERITIES)}.")
    if unknown := [need for need in rule.needs if need not in _NEEDS]:
        raise RuleError(f"The header needs {', '.join(unknown)}, which is not one of {', '.join(_NEEDS)}.")


def _rules_table(rules: list[Rule], manifest: Manifest) -> pa.Table:
    facts = manifest.fetch
    # What is not on a short list may be there all the same, and what an inventory lacks that is not whole, registered.
    was_read = {"list": facts.list_is_whole and manifest.inventory.is_whole, "usage": facts.usage_is_observed}
    # What of it could not be read is looked at for each finding.
    was_read["registry"] = facts.registry_was_read
    rows = [
        {
            "rule": rule.name,
            "title": rule.title,
            "severity": rule.severity,
            "why": rule.why,
            "what_to_do": rule.what_to_do,
            "error": rule.error,
            "sql_sha256": rule.sql_sha256,
            "is_decided": rule.error is None and all(was_read[need] for need in rule.needs),
            "needs_registry": "registry" in rule.needs,
        }
        for rule in rules
    ]
    return pa.Table.from_pylist(rows, schema=_RULES)


# --- applying them --------------------------------------------------------------------------------------------------


def _apply_rules(analysis: Analysis, rules: list[Rule], scratch: Path) -> list[Rule]:
    """Make what the rules find the relation `found` (rule, id, evidence); returns the rules with their errors.

    What they find stays in `scratch`.
    """
    files = _rule_files(analysis, scratch)
    views: dict[str, str] = {}
    if held := analysis.engine.held_files("current_images"):
        files["current_images"] = RuleFile(held)
    else:
        for name, relation in (("tag_keys", tag_keys(analysis.run.settings)), ("past_tags", analysis.past_tags())):
            files[name] = small_rule_file(scratch, name, relation)
        views = {name: read_sql(f"derive/{name}.sql") for name in ("image_owners", "current_images")}
    # What the engine and that process hold adds up.
    analysis.engine.rest()
    give_back_memory()
    with RuleProcess(scratch, files, views, analysis.run.settings.audit_rule_seconds) as process:
        applied = [_with_error(rule, process.apply) for rule in rules]
    found = [path for rule in applied if rule.error is None for path in process.found(rule.name)]
    analysis.engine.load_local("found", found, _FOUND)
    return applied


def _rule_files(analysis: Analysis, scratch: Path) -> dict[str, RuleFile]:
    """What rules may read besides `current_images`, as files."""
    lake, partition = analysis.lake, analysis.partition

    def place(table: Table) -> LakePath:
        return analysis.staged_or(lake.table(table.name, partition))

    columns = ", ".join(column.name for column in RESPONSES.columns if column.name != "body")
    history = analysis.staged_or(lake.project_table(IMAGE_HISTORY.name, partition.project))
    files = {
        table.name: as_rule_file(scratch, table.name, place(table), table, columns if table is RESPONSES else "*")
        for table in (
            *TABLES.values(),
            IMAGE_CHANGES,
            IMAGE_RECONCILIATION,
            IMAGE_STORAGE,
            REGISTRY_ONLY,
            IMAGE_USAGE,
        )
        if table not in (LIST_PAGES, REGISTRY_PAGES)
    }
    files[IMAGE_HISTORY.name] = as_rule_file(scratch, IMAGE_HISTORY.name, history, IMAGE_HISTORY)
    small = {"parameters": analysis.parameters} | _rule_values(analysis.run.settings)
    return files | {name: small_rule_file(scratch, name, data) for name, data in small.items()}


def _with_error(rule: Rule, apply: Callable[[str, str], None]) -> Rule:
    """A rule that has been applied, if it can be."""
    if rule.error is None and rule.sql is not None:
        try:
            apply(rule.name, rule.sql)
        except RuleError as error:
            return replace(rule, error=str(error))
    return rule


def _texts(**columns: list[str]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _rule_values(settings: Settings) -> dict[str, pa.Table]:
    """Documented values and the setting of namespaces, which has no rows while it is not set."""
    known = [(field, value) for field, values in KNOWN_VALUES.items() for value in sorted(values)]
    return {
        "known_values": _texts(field=[field for field, _ in known], value=[value for _, value in known]),
        "allowed_namespaces": _texts(namespace=sorted(settings.allowed_namespaces or ())),
    }


# --- suppressions ---------------------------------------------------------------------------------------------------

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Suppression(BaseModel):
    """One entry of the suppressions file: a rule's finding about one image, or its findings in one namespace.

    It holds up to and including `until`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rule: _Text
    id: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, to_lower=True)] | None = None
    namespace: _Text | None = None
    reason: _Text
    until: date

    @model_validator(mode="after")
    def _names_one_target(self) -> Self:
        if (self.id is None) == (self.namespace is None):
            raise ValueError("state either id or namespace")
        return self


class _SuppressionsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    suppression: list[Suppression] = []


def read_suppressions(path: Path) -> list[Suppression]:
    """The entries of a suppressions file, ended ones included.

    Raises:
        ConfigurationError: the file cannot be read or is wrong; names the entry by its number.
    """
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"The suppressions file {path} cannot be read ({error.strerror}): correct IMAGE_SNAPSHOTS_SUPPRESSIONS."
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"The suppressions file {path} {error}.") from None
    try:
        return _SuppressionsFile.model_validate(parse_toml(text)).suppression
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place, *inner = first["loc"][1:] or (None,)
        entry = f"entry {int(place) + 1} of " if place is not None else ""
        field = ".".join(str(part) for part in (inner if place is not None else first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(
            f"Correct {entry}the suppressions file {path}: {field + ': ' if field else ''}{reason}."
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"The suppressions file {path} is not TOML: {error}.") from None
