"""The sentences before the report's tables of sizes, costs and bills: what the figures are, and what was not read."""

from collections.abc import Iterator

from pipelines.derive.usage import UNUSED_AFTER_DAYS
from pipelines.lake.derived_manifests import DerivedSummary, RegistrySummary
from pipelines.lake.manifests import BILLS, FetchFacts
from pipelines.report.words import plural, size


def cost_notes(fetch: FetchFacts, summary: DerivedSummary, users: str | None) -> str:
    """The paragraph about sizes and costs; `users`: what was looked at, None if no source of usage was read."""
    return " ".join(_sentences(fetch, summary, users))


def _sentences(fetch: FetchFacts, summary: DerivedSummary, users: str | None) -> Iterator[str]:
    yield "1 GiB is 1024³ bytes."
    yield "Images share layers, which count for each image: sums are upper bounds of the stored size."
    if summary.is_priced:
        yield "Costs are estimates of one day by the price book, not a bill."
    else:
        yield "The price book states no price above zero, so no estimates are shown."
    yield _stored(summary.registry)
    yield _freed(fetch, summary, users)


def _stored(registry: RegistrySummary | None) -> str:
    if registry is None or registry.stored_bytes is None or registry.tags is None:
        return "The registry was not read, so it is not known what it stores."
    said = f"The registry stores {size(registry.stored_bytes)} in {plural(registry.tags, 'tag', 'tags')}, each layer "
    said += "counted once"
    if registry.only_tags:
        own = "whose own bytes are unknown or none"
        if registry.only_bytes:
            own = f"which take at least {size(registry.only_bytes)} for themselves"
        said += f"; no known image of this project registers {plural(registry.only_tags, 'tag', 'tags')}, {own}"
    if registry.unread:
        unread = plural(registry.unread, "repository", "repositories")
        said += f". {unread} could not be read as a whole, so bytes are unknown for images of the same namespace"
    return f"{said}."


def _freed(fetch: FetchFacts, summary: DerivedSummary, users: str | None) -> str:
    registry, exact = summary.registry, summary.reclaimable_bytes
    if exact is None and not (registry and fetch.usage_is_observed):
        return f"Usage was not read{' as a whole' if users else ''}, so it is not known what could be freed."
    unused = f"the images that had no {users} for {UNUSED_AFTER_DAYS} observed days"
    if registry and exact is None:
        unknown = plural(registry.unknown_images, "image", "images")
        frees = f"at least {size(registry.known_reclaimable_bytes)}; it is unknown for {unknown} of them"
    elif registry and exact:
        frees = f"exactly {size(exact)}, by layers that no other tag has"
    elif exact:
        return f"Deleting {unused} would free at most {size(exact)}; ask owners first, because other uses are not seen."
    else:
        return f"No image has gone {UNUSED_AFTER_DAYS} observed days without any {users}."
    return f"Deleting {unused} would free {frees}. Ask owners first, because other uses are not seen."


def bill_notes(fetch: FetchFacts) -> str:
    """The paragraph about bills when none is known."""
    bills = fetch.sources.get(BILLS)
    if bills is None or not bills.wanted:
        return "No bill was read, so it is not known what is billed."
    if not bills.was_read:
        return "The bill was not read, so it is not known what is billed."
    return "The bill has no charges for the registry or ModelArts yet. It comes some days later."
