"""The result of a command's runs, printed or as JSON: what was published where, and a summary of the day."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from assets.terminal import count_text, print_line, print_table, size_text
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import Manifest, inventory_warning, outside_scope, unobserved_usage
from pipelines.lake.stored_responses import failed_ids
from pipelines.tables import Outcome

if TYPE_CHECKING:
    from pipelines.lake.derived_manifests import DerivedSummary


def run_report(
    lake: Lake, partition: Partition, status: int, error: str | None, manifest: Manifest | None
) -> dict[str, Any]:
    """The result for one partition, as JSON values; `status` is the exit status of its run."""
    from pipelines.lake.derived_manifests import read_derived_manifest  # noqa: PLC0415  (it takes long)

    report: dict[str, Any] = {"date": str(partition.date), "project": partition.project, "exit_status": status}
    if manifest is None:
        return report | {"state": "failed", "error": error}
    derived_manifest = read_derived_manifest(lake, partition)
    return report | {
        "state": "complete" if manifest.is_complete else "incomplete",
        # Why derived tables of the published day are missing; None if none are.
        "error": error,
        "run_id": manifest.run_id,
        "outcomes": manifest.fetch.outcomes,
        "failed": [failed.model_dump() for failed in failed_ids(lake.table("responses", partition))],
        "inventory_is_whole": manifest.inventory.is_whole,
        "inventory_warning": inventory_warning(manifest.inventory),
        "list_error": manifest.fetch.list_error,
        "scope_error": outside_scope(manifest.fetch),
        "usage_errors": unobserved_usage(manifest.fetch),
        "is_sandbox": manifest.fetch.is_sandbox,
        "manifest": str(lake.manifest(partition)),
        "tables": {
            name: {"path": str(lake.root / file.path), "rows": file.rows, "bytes": file.bytes, "sha256": file.sha256}
            for name, file in [*manifest.files.items(), *(derived_manifest.files.items() if derived_manifest else ())]
        },
        "summary": derived_manifest.summary.model_dump(mode="json") if derived_manifest else None,
        "report": str(lake.report(partition)) if lake.report(partition).is_there() else None,
    }


def print_reports(reports: list[dict[str, Any]]) -> None:
    """Print the results of a command's runs."""
    from pipelines.lake.derived_manifests import DerivedSummary  # noqa: PLC0415  (it takes long)

    shown = [report for report in reports if "tables" in report and report["date"] == reports[-1]["date"]]
    rows = [
        (report["date"], report["project"], name, f"{file['rows']:,}", f"{file['bytes']:,}", short_path(file["path"]))
        for report in shown
        for name, file in report["tables"].items()
    ]
    if rows and not Console().is_terminal:
        print_table("Published", ("date", "project", "table", "rows", "bytes", "file"), rows)
    elif rows:
        # Paths differ only in table and project, and do not fit in 80 columns.
        print_table(f"Published on {rows[0][0]}", ("project", "table", "rows", "bytes"), [row[1:-1] for row in rows])
        print_line(f"Files: {_pattern(shown[0])}")
    for report in reports:
        outcomes = outcomes_text(report.get("outcomes", {}))
        print_line(f"{report['date']} {report['project']}: {report['state']}" + (f" ({outcomes})" if outcomes else ""))
        if report.get("is_sandbox"):
            print_line("  sample data: the images are the sandbox's invented ones")
        invalid = report.get("outcomes", {}).get(Outcome.INVALID_ID, 0)
        if invalid:
            where = short_path(report["tables"]["responses"]["path"])
            print_line(f"  not a UUID, never sent: {count_text(invalid, 'id')} (outcome invalid_id in {where})")
        failed = report.get("failed", [])
        if failed:
            first = ", ".join(f"{item['id']} ({item['error_code']})" for item in failed[:5])
            print_line(f"  without a response: {first}" + (f" and {len(failed) - 5} more" if len(failed) > 5 else ""))
        for error in ("inventory_warning", "list_error", "scope_error"):
            if report.get(error):
                print_line(f"  {report[error]}")
        for name, why in report.get("usage_errors", {}).items():
            print_line(f"  usage by {name.replace('_', ' ')} is not known: {why}")
        if report["state"] != "failed" and report.get("error"):
            print_line("  published, but some derived results are missing: see the error above")
        if report.get("summary") and not report.get("error"):
            for line in summary_lines(DerivedSummary.model_validate(report["summary"])):
                print_line(f"  {line}")
    # The newest report of each project.
    for path in {report["project"]: report["report"] for report in reports if report.get("report")}.values():
        print_line(f"Report: {short_path(path)}")


def _pattern(report: dict[str, Any]) -> str:
    """The path pattern of a day's files, for every table and project."""
    name, file = next(iter(report["tables"].items()))
    path = short_path(file["path"]).replace(f"project={report['project']}", "project=*")
    return path.replace(f"/{name}/", "/TABLE/").replace(f"{name}.parquet", "TABLE.parquet")


def summary_lines(summary: "DerivedSummary") -> list[str]:
    """A day in five lines: images, changes, findings, bytes, estimated cost; more lines if needed."""
    if not summary.is_complete:
        changes = "not compared, because the day is incomplete"
    elif summary.compared_with is None:
        changes = "none known: there is no complete day before this one"
    else:
        counts = [f"{count:,} {change}" for change, count in summary.changes.items()]
        changes = (", ".join(counts) or "none") + f" since {summary.compared_with}"
    findings = ", ".join(f"{count:,} {severity}" for severity, count in summary.findings.items() if count) or "none"
    resolved, suppressed = summary.resolved_findings, summary.suppressed_findings
    life = f"{summary.new_findings:,} new, {resolved:,} resolved, {suppressed:,} suppressed"
    growth = (
        ""
        if summary.growth_bytes is None
        else f", {size_text(summary.growth_bytes, signed=True)} since the last complete day"
    )
    cost = (
        "unknown" if summary.estimated_cost is None else f"{summary.estimated_cost:,.2f} {summary.currency} for the day"
    )
    cost += ", estimated"
    if not summary.is_priced:
        cost += "; no price above zero (docs/costs.md)"
    elif summary.unpriced:
        cost += f"; {count_text(summary.unpriced, 'image')} without a price"
    lines = [
        f"images    {summary.images:,}",
        f"changes   {changes}",
        f"findings  {findings} ({life})",
        f"bytes     {size_text(summary.total_bytes)}{growth}",
        f"cost      {cost}",
    ]
    registry = summary.registry
    if registry is not None and registry.stored_bytes is not None:
        tags = count_text(registry.tags or 0, "tag")
        lines.append(f"registry  {size_text(registry.stored_bytes)} in {tags}, each layer counted once")
    elif registry is not None:
        lines.append("registry  not read: what it stores is unknown")
    if registry is not None and registry.unknown_images:
        unknown = count_text(registry.unknown_images, "image")
        known = size_text(registry.known_reclaimable_bytes)
        lines.append(f"unused    deleting them would free at least {known}, unknown for {unknown}")
    elif summary.reclaimable_bytes:
        bound = "exactly" if registry is not None else "at most"
        lines.append(f"unused    deleting them would free {bound} {size_text(summary.reclaimable_bytes)}")
    lines += [f"rule {rule} failed: {reason}" for rule, reason in summary.rule_errors.items()]
    return lines


def short_path(path: str) -> str:
    """A path relative to the working directory, if it is below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def outcomes_text(counts: dict[str, int]) -> str:
    """Outcomes with their counts, in the order of `Outcome`."""
    return ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in Outcome if outcome in counts)
