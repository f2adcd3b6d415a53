"""The beginning of the report: the verdict, the headline figures, and the notes to read before them."""

from collections.abc import Iterator
from typing import Any

from pipelines.derive.usage import reasons_not_observed
from pipelines.lake.derived_manifests import DerivedSummary
from pipelines.lake.manifests import BILLS, REGISTRY, Manifest, inventory_warning, short_list
from pipelines.report.data import severe
from pipelines.report.words import count, difference, long_date, money, plural, signed, size

# Rule of `sql/audit/` -> days of observed usage that it needs to find anything.
AWAITED_DAYS = {"large_and_unused": 7, "unused_30_days": 30, "unused_90_days": 90}


def asked(manifest: Manifest) -> int:
    """The number of ids in the inventory; each has one outcome."""
    return sum(manifest.fetch.outcomes.values())


def verdict(manifest: Manifest, summary: DerivedSummary) -> tuple[str, str, str]:
    """The tone, the verdict in a word or two, and its sentences."""
    sentences = []
    failed = manifest.fetch.failed
    if not summary.is_complete:
        ids = plural(asked(manifest), "image id", "image ids")
        sentences.append(f"{failed:,} of {ids} got no response.")
    total = sum(summary.findings.values())
    if total:
        parts = ", ".join(f"{number:,} {name}" for name, number in summary.findings.items() if number)
        sentences.append(f"{plural(total, 'finding is', 'findings are')} open: {parts}.")
    else:
        sentences.append("No open findings.")
    if summary.compared_with:
        new = f"{summary.new_findings:,}" if summary.new_findings else "None"
        resolved = f"{summary.resolved_findings:,}" if summary.resolved_findings else "none"
        is_, was = ("are" if summary.new_findings != 1 else "is", "was" if summary.resolved_findings == 1 else "were")
        sentences.append(f"{new} {is_} new since {long_date(summary.compared_with)}, {resolved} {was} resolved.")
    if summary.rule_errors:
        broken = plural(len(summary.rule_errors), "audit rule", "audit rules")
        sentences.append(f"{broken} could not be run, so there may be more findings.")
    if not summary.is_complete:
        label = "Incomplete day."
    elif summary.rule_errors:
        label = "Incomplete audit."
    elif severe(summary):
        label = "Attention needed."
    else:
        label = "Nothing critical or high."
    tone = "calm" if label.startswith("Nothing") else "attention"
    return tone, label, " ".join(sentences)


def notes(manifest: Manifest, summary: DerivedSummary) -> Iterator[tuple[str, str]]:
    """The notes that a reader needs before the figures, each with a heading."""
    fetch = manifest.fetch
    if not summary.is_complete:
        meaning = (
            "Images without a response are shown in their last known state, and count in sizes and costs. Changes and "
            "resolved findings are reported on the next complete day only. New findings of this day are "
            "provisional."
        )
        yield "What incomplete means", meaning
    if summary.compared_with is None:
        and_findings = ", and every finding counts as new." if sum(summary.findings.values()) else "."
        yield (
            "Nothing to compare with",
            f"There is no complete day before this one, so no changes are shown{and_findings}",
        )
    elif (days := (manifest.snapshot_date - summary.compared_with).days) > 1:
        since = f"The last complete day was {long_date(summary.compared_with)}, {days} days before this one"
        yield "Compared across a gap", f"{since}: changes of all days since are shown together."
    if not fetch.list_was_read:
        reason = f" ({fetch.list_error})" if fetch.list_error else ""
        yield (
            "The image list was not read",
            f"So images that are present but not registered are unknown{reason}.",
        )
    if not fetch.usage_kinds:
        yield (
            "Usage was not read",
            "So it is not known which images are in use; not known is not the same as unused.",
        )
    elif not fetch.usage_is_observed:
        yield (
            "Usage was not read as a whole",
            f"{' '.join(reasons_not_observed(fetch))} What is used counts; no image counts as unused by this day.",
        )
    registry = fetch.sources.get(REGISTRY)
    if registry is not None and registry.error:
        yield (
            "The registry was not read",
            f"{registry.error.rstrip('.')}. What it stores is not known; findings about it stay as they were.",
        )
    elif registry is not None and registry.partial:
        unread = f"{registry.partial[0].upper()}{registry.partial[1:].rstrip('.')}"
        yield (
            "The registry was not read as a whole",
            f"{unread}. Bytes are not known of what may share layers with that.",
        )
    bill = fetch.sources.get(BILLS)
    if bill is not None and (lack := bill.error or bill.partial):
        yield (
            "The bill was not read",
            f"{lack[0].upper()}{lack[1:].rstrip('.')}. What was known of it before stands.",
        )
    if warning := inventory_warning(manifest.inventory):
        is_whole = manifest.inventory.is_whole
        yield "A smaller inventory was accepted" if is_whole else "The inventory is not whole", warning
    if warning := short_list(fetch):
        yield "The image list has gaps", warning


def awaited(rules: list[dict[str, Any]], observed: int) -> Iterator[tuple[str, str]]:
    """Why a rule finds so much at once: on this day usage has been observed for as long as it asks."""
    for rule in rules:
        if rule["new_findings"] and AWAITED_DAYS.get(rule["rule"]) == observed:
            new = plural(rule["new_findings"], "new finding", "new findings")
            reason = f"Usage has been observed for {observed} days as now, so “{rule['title']}” can be decided"
            yield "Not new, but known now", f"{reason} for the first time. Its {new} did not arise on this day."


def figures(
    summary: DerivedSummary, before: DerivedSummary | None, bill: dict[str, Any] | None = None
) -> list[tuple[str, str, str, str]]:
    """Name, value, change since the last complete day, and a remark, for each headline figure.

    `bill`: the newest row of `sql/report/bills.sql`, if a bill is known.
    """
    total = sum(summary.findings.values())
    images, findings, cost_change = None, None, None
    if before:
        images = summary.images - before.images
        findings = total - sum(before.findings.values())
    cost = summary.estimated_cost if summary.is_priced else None
    if cost is not None and before and before.is_priced and before.currency == summary.currency:
        cost_change = None if before.estimated_cost is None else cost - before.estimated_cost
        # The last digits of sums of fractions mean nothing.
        if cost_change is not None and abs(cost_change) < 1e-6:
            cost_change = 0.0

    def since(change: float | None, amount: str) -> str:
        if summary.compared_with is None:
            return "nothing to compare with"
        return f"{signed(change, amount)} since {summary.compared_with}"

    def unsigned(change: int | None) -> str:
        return f"{abs(change or 0):,}"

    moves = ", ".join(
        f"{summary.changes[kind]:,} {kind}" for kind in ("added", "reappeared", "removed") if summary.changes.get(kind)
    )
    lives = (
        f"{summary.new_findings:,} new, {summary.resolved_findings:,} resolved, "
        f"{summary.suppressed_findings:,} suppressed."
    )
    if not summary.is_priced:
        price = ("not priced", "", "The price book states no price above zero.")
    elif cost is None:
        price = ("not known", "", "The price book states no price for these images.")
    else:
        unpriced = plural(summary.unpriced, "image has", "images have")
        price = (
            f"{summary.currency}\u00a0{money(cost)}",
            # Show small changes, too: "no change" beside a size that grew would be wrong.
            since(cost_change, money(abs(cost_change or 0))),
            "For one day; an estimate, not a bill." + (f" {unpriced} no price." if summary.unpriced else ""),
        )
    registry = summary.registry
    stored = f"; the registry stores {size(registry.stored_bytes)}" if registry and registry.stored_bytes else ""
    return [
        ("Images", count(summary.images), since(images, unsigned(images)), f"{moves}." if moves else ""),
        (
            "Stored size",
            size(summary.total_bytes),
            since(summary.growth_bytes, size(abs(summary.growth_bytes or 0))),
            f"{summary.total_bytes:,} bytes. Shared layers count for each image{stored}.",
        ),
        ("Estimated cost", *price),
        *([_billed(bill)] if bill else []),
        (
            "Open findings",
            count(total) if total else "none",
            since(findings, unsigned(findings)),
            lives,
        ),
    ]


def _billed(bill: dict[str, Any]) -> tuple[str, str, str, str]:
    """The registry's bill beside the estimate of the same day."""
    date, currency = bill["charge_date"], bill["currency"]
    if bill["estimated_cost"] is None:
        compared = f"no estimate in {currency} for {date}"
    else:
        compared = f"{difference(bill['difference'])} beside the estimate of {money(bill['estimated_cost'])}"
    others = f"ModelArts billed {money(bill['billed_modelarts_cost'])}."
    return (
        "Registry billed",
        f"{currency}\u00a0{money(bill['billed_registry_cost'])}",
        compared,
        f"For {date}, the newest bill that is known, and the estimate of that day. {others}",
    )
