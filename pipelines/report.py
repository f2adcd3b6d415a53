"""The report of a day for people: one HTML file that needs nothing else, made from what is published and derived.

What it counts comes from the day's seal and from the SQL under `sql/report/`; how it looks is `report.html.j2` and
`report.css`. Choosing what is shown, putting figures into words and drawing the trend belong here. The same lake gives
the same bytes.
"""

import datetime as dt
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import duckdb
import orjson
import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.answers import Outcome
from pipelines.audit import SEVERITIES
from pipelines.columns import IMAGE_HISTORY, IMAGES, INVENTORY
from pipelines.derived import DaySummary, DerivedSeal, bases, read_seal
from pipelines.engine import read_sql
from pipelines.engine_duckdb import DuckDBEngine
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake import Lake, Partition, sha256_of_file, storage_errors, write_atomically
from pipelines.manifest import Manifest, published
from pipelines.usage import UNUSED_AFTER_DAYS

TREND_DAYS = 90
# What bounds the file: rows of each kind, and characters of each text.
SHOWN_FINDINGS = 10_000
SHOWN_CHANGES = 200
SHOWN_GROUPS = 15
SHOWN_OUTLIERS = 8
SHOWN_IDS = 200
SHOWN_TEXT = 200
SHOWN_EVIDENCE = 12
# Longer tables are folded until a reader asks for them, and stay so on paper.
UNFOLDED_ROWS = 12
PRINTED_ROWS = 100

_LIMITS = {
    "shown_findings": SHOWN_FINDINGS,
    "shown_changes": SHOWN_CHANGES,
    "shown_groups": SHOWN_GROUPS,
    "shown_outliers": SHOWN_OUTLIERS,
    "shown_text": SHOWN_TEXT,
}
_QUERIES = ("rules", "findings", "change_classes", "changes", "bytes_and_costs", "outliers")

_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(\.\d+)?Z")
_MINUS = "\u2212"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_OUTCOMES = {
    Outcome.OK: "The API described the image.",
    Outcome.DELETED: "The API says that the image was deleted.",
    Outcome.NOT_FOUND: "The API knows no such image.",
    Outcome.FORBIDDEN: "These credentials may not see the image; it counts as last known.",
    Outcome.FAILED: "No answer was had; the image counts as last known, and the day is incomplete.",
    Outcome.INVALID_ID: "The inventory's id is no UUID; it was never sent.",
}
_CLASSES = {
    "access": "Who can reach the image: visibility, namespace, workspace",
    "lifecycle": "Images that came or went, and their status",
    "content": "What is in the image: registry address, tag, architecture, size, update",
    "metadata": "How it is described: name, type, description, supported services",
}

# Colours that stand for variables of the style sheet until the drawing is done.
_COLOURS = {
    "#010101": "var(--line)",
    "#020202": "var(--line-2)",
    "#030303": "var(--muted)",
    "#040404": "var(--rule)",
    "#050505": "var(--page)",
}
_LINE, _LINE_2, _MUTED, _RULE, _PAGE = _COLOURS
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


@dataclass(frozen=True, slots=True)
class TrendDay:
    """A day of the trend; `summary` is None when the day has no snapshot or was never derived."""

    date: dt.date
    summary: DaySummary | None
    currency: str

    @property
    def state(self) -> str:
        """What is known of the day, in words."""
        if self.summary is None:
            return "no snapshot"
        return "complete" if self.summary.is_complete else "incomplete"

    @property
    def findings(self) -> int | None:
        """Open findings of all severities."""
        return None if self.summary is None else sum(self.summary.findings.values())

    @property
    def severe(self) -> int | None:
        """Open findings that are critical or high."""
        return None if self.summary is None else _severe(self.summary)

    @property
    def cost(self) -> float | None:
        """Estimated cost of the day, where it is stated in the currency of the report's day."""
        if self.summary is None or self.summary.currency != self.currency or not self.summary.is_priced:
            return None
        return self.summary.estimated_cost


def write_report(lake: Lake, partition: Partition, output: Path | None = None) -> Path:
    """Write the report of a day, into the lake or to `output`, and return where it is.

    Raises:
        ConfigurationError: the day is not published, its derived tables are missing or outdated, or `output` cannot
            be written.
        StorageError: the lake cannot be read or written.
    """
    content = render_report(lake, partition).encode()
    path = output or lake.report(partition)
    if output is None:
        with storage_errors(path):
            write_atomically(path, content)
    else:
        try:
            write_atomically(path, content)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    return path


def outdated_reports(lake: Lake, project: str) -> list[Partition]:
    """The days of a project whose report is older than what was derived for them since."""
    days = [partition for partition in lake.partitions() if partition.project == project]
    return [
        day
        for day in days
        if lake.report(day).exists()
        and lake.derived_seal(day).exists()
        and lake.report(day).stat().st_mtime < lake.derived_seal(day).stat().st_mtime
    ]


def render_report(lake: Lake, partition: Partition) -> str:
    """The report of a day as HTML.

    Raises:
        ConfigurationError: the day is not published, or its derived tables are missing or outdated.
        StorageError: the lake cannot be read.
    """
    manifest = published(lake, partition)
    if manifest is None:
        raise ConfigurationError(
            f"Nothing is published for {partition}, so there is nothing to report. "
            "`image-snapshots status` lists the days that are there."
        )
    basis = bases(lake, partition.project)
    seal = read_seal(lake, partition)
    if seal is None or seal.basis != basis[partition]:
        raise ConfigurationError(
            f"The tables derived from {partition} are missing, or made from what was replaced since: derive them with "
            f"`image-snapshots rebuild --date {partition.date} --project {partition.project}`, and report again."
        )
    rows = _read_tables(lake, partition, seal)
    trend = _trend(lake, partition, seal.summary.currency, basis)
    compared_with = seal.summary.compared_with
    previous = read_seal(lake, Partition(compared_with, partition.project)) if compared_with else None
    before = previous.summary if previous else None
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=_count, size=_size, signed=_signed, money=_money, long_date=_long_date, moment=_moment, words=_words
    )
    return environment.get_template("report.html.j2").render(
        partition=partition,
        manifest=manifest,
        manifest_path=lake.manifest(partition).relative_to(lake.root),
        manifest_sha256=sha256_of_file(lake.manifest(partition)),
        seal=seal,
        summary=seal.summary,
        verdict=_verdict(manifest, seal.summary),
        notes=list(_notes(manifest, seal.summary)),
        figures=_figures(seal.summary, before),
        severity_counts=[
            (name, number, number - before.findings[name] if before else None)
            for name, number in seal.summary.findings.items()
        ],
        severities=_findings_by_severity(rows["rules"], rows["findings"]),
        set_aside=_set_aside(rows["rules"], rows["findings"]),
        changes=_changes(rows["change_classes"], rows["changes"]),
        groups={kind: _with_share(found) for kind, found in _grouped(rows["bytes_and_costs"], "dimension").items()},
        outliers={"largest": [], "grown": [], "unused": []} | _grouped(rows["outliers"], "kind"),
        trend=trend,
        charts=_charts(trend),
        broken=[rule for rule in rows["rules"] if rule["error"] is not None],
        silent=[
            rule for rule in rows["rules"] if rule["has_file"] and rule["error"] is None and not rule["open_findings"]
        ],
        rules_applied=len({rule["rule"] for rule in rows["rules"] if rule["has_file"] and rule["error"] is None}),
        outcomes=[(name, manifest.fetch.outcomes.get(name, 0), meaning) for name, meaning in _OUTCOMES.items()],
        asked=_asked(manifest),
        failed=manifest.failed[:SHOWN_IDS],
        files=[*manifest.files.values(), *seal.files.values()],
        printed_rows=PRINTED_ROWS,
        unused_after_days=UNUSED_AFTER_DAYS,
    )


def _read_tables(lake: Lake, partition: Partition, seal: DerivedSeal) -> dict[str, list[dict[str, Any]]]:
    """Rows of each query of `sql/report/`; none gives more than the limits allow."""
    history = lake.project_table(IMAGE_HISTORY.name, partition.project)
    try:
        with DuckDBEngine() as engine:
            engine.load("report_limits", pa.table({name: [limit] for name, limit in _LIMITS.items()}))
            for table in (IMAGES, INVENTORY):
                engine.load_file(table.name, lake.table(table.name, partition))
            for name, file in seal.files.items():
                engine.load_file(name, lake.root / file.path)
            engine.load_file(IMAGE_HISTORY.name, history)
            return {name: engine.read(read_sql(f"report/{name}.sql")).to_pylist() for name in _QUERIES}
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise StorageError(
            f"The tables of {partition} cannot be read for the report: {reason}. Derive them again with "
            f"`image-snapshots rebuild --date {partition.date} --project {partition.project}`."
        ) from error


def _trend(lake: Lake, partition: Partition, currency: str, basis: dict[Partition, str]) -> list[TrendDay]:
    """The days up to the report's, from the first that has figures; what is outdated has none."""
    first = partition.date - dt.timedelta(days=TREND_DAYS - 1)
    found = {}
    for day, its_basis in basis.items():
        if first <= day.date <= partition.date:
            seal = read_seal(lake, day)
            if seal is not None and seal.basis == its_basis:
                found[day.date] = seal.summary
    begin = min(found)
    dates = [begin + dt.timedelta(days=number) for number in range((partition.date - begin).days + 1)]
    return [TrendDay(date, found.get(date), currency) for date in dates]


# --- in words -------------------------------------------------------------------------------------------------------


def _count(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _size(value: int | None) -> str:
    """Bytes in the largest unit of which there is at least one."""
    if value is None:
        return "not known"
    power = min((max(abs(value).bit_length() - 1, 0)) // 10, len(_UNITS) - 1)
    amount = f"{abs(value):,}" if power == 0 else f"{abs(value) / 1024**power:,.2f}"
    unit = "byte" if power == 0 and abs(value) == 1 else _UNITS[power]
    return f"{_MINUS if value < 0 else ''}{amount}\u00a0{unit}"


def _signed(change: float | None, amount: str) -> str:
    """A change in words; `amount` is its size without a sign."""
    if change is None:
        return "not known"
    if change == 0:
        return "no change"
    return f"{'+' if change > 0 else _MINUS}{amount}"


def _money(value: float | None) -> str:
    if value is None:
        return "not known"
    return "below 0.01" if 0 < value < 0.005 else f"{value:,.2f}"


def _long_date(value: dt.date) -> str:
    return f"{value.day}\u00a0{value:%B}\u00a0{value.year}"


def _moment(value: dt.datetime) -> str:
    return f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _words(value: Any) -> str:
    """A value of evidence or of a change, as text of bounded length."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if found := _ISO_TIME.fullmatch(text):
        return f"{found[1]} {found[2]} UTC"
    if text == "":
        return "empty"
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}\u2026"


def _plural(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _severe(summary: DaySummary) -> int:
    return summary.findings["critical"] + summary.findings["high"]


def _asked(manifest: Manifest) -> int:
    """Ids of the inventory: each has one outcome."""
    return sum(manifest.fetch.outcomes.values())


def _verdict(manifest: Manifest, summary: DaySummary) -> tuple[str, str, str]:
    """Tone, the verdict in a word or two, and its sentences."""
    sentences = []
    failed = manifest.fetch.failed
    if not summary.is_complete:
        ids = _plural(_asked(manifest), "image id", "image ids")
        sentences.append(f"{failed:,} of {ids} got no answer.")
    total = sum(summary.findings.values())
    if total:
        parts = ", ".join(f"{number:,} {name}" for name, number in summary.findings.items() if number)
        sentences.append(f"{_plural(total, 'finding is', 'findings are')} open: {parts}.")
    else:
        sentences.append("No open findings.")
    if summary.compared_with:
        new = f"{summary.new_findings:,}" if summary.new_findings else "None"
        resolved = f"{summary.resolved_findings:,}" if summary.resolved_findings else "none"
        is_, was = ("are" if summary.new_findings != 1 else "is", "was" if summary.resolved_findings == 1 else "were")
        sentences.append(f"{new} {is_} new since {_long_date(summary.compared_with)}, {resolved} {was} resolved.")
    if summary.rule_errors:
        broken = _plural(len(summary.rule_errors), "audit rule", "audit rules")
        sentences.append(f"{broken} could not be applied, so more may be open.")
    if not summary.is_complete:
        label = "Incomplete day."
    elif summary.rule_errors:
        label = "Incomplete audit."
    elif _severe(summary):
        label = "Attention needed."
    else:
        label = "Nothing critical or high."
    tone = "calm" if label.startswith("Nothing") else "attention"
    return tone, label, " ".join(sentences)


def _notes(manifest: Manifest, summary: DaySummary) -> Iterator[tuple[str, str]]:
    """What a reader must know before reading figures: each with a heading."""
    fetch = manifest.fetch
    if fetch.is_sandbox:
        yield "Sample data", "The images come from the built-in sandbox, not from a cloud account."
    if not summary.is_complete:
        meaning = (
            "Images without an answer are shown as they were last known, and count in sizes and costs. Nothing is "
            "reported as changed, and no finding as resolved: that shows on the next complete day. Findings that are "
            "new here are provisional."
        )
        yield "What incomplete means", meaning
    if summary.compared_with is None:
        and_findings = ", and every finding counts as new." if sum(summary.findings.values()) else "."
        yield (
            "Nothing to compare with",
            f"There is no complete day before this one, so no changes are shown{and_findings}",
        )
    elif (days := (manifest.snapshot_date - summary.compared_with).days) > 1:
        since = f"The last complete day was {_long_date(summary.compared_with)}, {days} days before this one"
        yield "Compared across a gap", f"{since}: changes of all days since are shown together."
    if not fetch.list_was_read:
        reason = f" ({fetch.list_error})" if fetch.list_error else ""
        yield (
            "The API's list of images was not read",
            f"So it is not known which images are present but not registered{reason}.",
        )
    if not fetch.notebooks_were_read:
        reason = f" ({fetch.notebooks_error})" if fetch.notebooks_error else ""
        yield (
            "Usage was not read",
            f"So it is not known which images are in use{reason}; not known is not the same as unused.",
        )
    if manifest.inventory.shortfall:
        images = _plural(manifest.inventory.shortfall, "image that is", "images that are")
        yield "The API's list has gaps", f"It counts {images} on none of its pages."


def _figures(summary: DaySummary, before: DaySummary | None) -> list[tuple[str, str, str, str]]:
    """Name, value, change since the last complete day, and what else to know, of each headline figure."""
    total = sum(summary.findings.values())
    images, findings, cost_change = None, None, None
    if before:
        images = summary.images - before.images
        findings = total - sum(before.findings.values())
    cost = summary.estimated_cost if summary.is_priced else None
    if cost is not None and before and before.is_priced and before.currency == summary.currency:
        cost_change = None if before.estimated_cost is None else round(cost - before.estimated_cost, 2)

    def since(change: float | None, amount: str) -> str:
        if summary.compared_with is None:
            return "nothing to compare with"
        return f"{_signed(change, amount)} since {summary.compared_with}"

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
        unpriced = _plural(summary.unpriced, "image has", "images have")
        price = (
            f"{summary.currency}\u00a0{_money(cost)}",
            since(cost_change, f"{abs(cost_change or 0):,.2f}"),
            "For one day; no bill." + (f" {unpriced} no price." if summary.unpriced else ""),
        )
    return [
        ("Images", _count(summary.images), since(images, unsigned(images)), f"{moves}." if moves else ""),
        (
            "Stored size",
            _size(summary.total_bytes),
            since(summary.growth_bytes, _size(abs(summary.growth_bytes or 0))),
            f"{summary.total_bytes:,} bytes. Layers that images share count for each.",
        ),
        ("Estimated cost", *price),
        (
            "Open findings",
            _count(total) if total else "none",
            since(findings, unsigned(findings)),
            lives,
        ),
    ]


# --- what is shown --------------------------------------------------------------------------------------------------


def _grouped(rows: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    """Rows by a column on which they are sorted."""
    return {key: list(found) for key, found in groupby(rows, lambda row: row[name])}


def _evidence(text: str | None) -> list[tuple[str, str]] | None:
    """Names and values of a finding's evidence; None when it is too long to be shown."""
    if text is None:
        return None
    return [(name[:SHOWN_TEXT], _words(value)) for name, value in list(orjson.loads(text).items())[:SHOWN_EVIDENCE]]


def _findings_by_severity(rules: list[dict[str, Any]], findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Severities with open findings, worst first, each with its rules and their findings."""
    shown: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in findings:
        if finding["kind"] == "open":
            finding["evidence"] = _evidence(finding["evidence"])
            shown.setdefault((finding["rule"], finding["severity"]), []).append(finding)
    severities = []
    for name in SEVERITIES:
        found = [
            rule | {"rows": shown[rule["rule"], name], "number": number}
            for number, rule in enumerate(rules)
            if rule["severity"] == name and rule["open_findings"]
        ]
        for rule in found:
            rule["is_unfolded"] = len(rule["rows"]) <= UNFOLDED_ROWS
        if found:
            severities.append({"name": name, "rules": found, "open": sum(rule["open_findings"] for rule in found)})
    return severities


def _set_aside(rules: list[dict[str, Any]], findings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Suppressed and resolved findings: how many, and those that are shown."""
    return {
        kind: {
            "count": sum(rule[f"{kind}_findings"] for rule in rules),
            "rows": [finding for finding in findings if finding["kind"] == kind],
        }
        for kind in ("suppressed", "resolved")
    }


def _changes(classes: list[dict[str, Any]], changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each class of changes: what it is, its counts by kind and field, and the changes that are shown."""
    counts, shown = _grouped(classes, "change_class"), _grouped(changes, "change_class")
    return [
        {
            "name": name,
            "meaning": meaning,
            "counts": counts.get(name, []),
            "rows": shown.get(name, []),
            # Who can reach what is read every day.
            "is_unfolded": name == "access" and len(shown.get(name, [])) <= UNFOLDED_ROWS,
            "total": shown[name][0]["class_changes"] if name in shown else 0,
        }
        for name, meaning in _CLASSES.items()
    ]


def _with_share(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups with their share of all bytes, in percent."""
    total = sum(group["size_bytes"] or 0 for group in groups)
    return [group | {"share": 100 * (group["size_bytes"] or 0) / total if total else 0.0} for group in groups]


# --- the trend, drawn -----------------------------------------------------------------------------------------------


def _charts(trend: Sequence[TrendDay]) -> list[dict[str, Any]]:
    """Line charts of the trend; none of what is not known on two days."""
    sizes = [None if day.summary is None else day.summary.total_bytes for day in trend]
    power = max(((size or 0).bit_length() - 1) // 10 for size in sizes)
    power = min(max(power, 0), len(_UNITS) - 1)
    wanted: list[tuple[str, str, list[tuple[str, Sequence[float | None]]]]] = [
        ("images", "Images", [("", [None if day.summary is None else day.summary.images for day in trend])]),
        (
            "size",
            f"Stored size in {_UNITS[power]}",
            [("", [None if size is None else size / 1024**power for size in sizes])],
        ),
        (
            "findings",
            "Open findings",
            [("all", [day.findings for day in trend]), ("critical or high", [day.severe for day in trend])],
        ),
        ("cost", f"Estimated cost of a day in {trend[-1].currency}", [("", [day.cost for day in trend])]),
    ]
    return [
        {
            "key": key,
            "title": title,
            "legend": [name for name, _ in series if name],
            "svg": _chart(key, title, trend, [values for _, values in series]),
        }
        for key, title, series in wanted
        if sum(value is not None for value in series[0][1]) > 1
    ]


def _told(title: str, trend: Sequence[TrendDay], values: Sequence[float | None]) -> str:
    """What a line shows, for those who do not see it."""
    known = [(value, day.date) for value, day in zip(values, trend, strict=True) if value is not None]
    (first, since), (last, until) = known[0], known[-1]
    lowest, highest = min(known)[0], max(known)[0]
    figures = [
        f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" for value in (first, last, lowest, highest)
    ]
    return (
        f"{title}: {figures[0]} on {since}, {figures[1]} on {until}; lowest {figures[2]}, highest {figures[3]}. "
        "The table of figures below has every day."
    )


def _chart(key: str, title: str, trend: Sequence[TrendDay], series: Sequence[Sequence[float | None]]) -> Markup:
    """One or two lines over the days as inline SVG; incomplete days are hollow marks, missing days gaps."""
    # Slow to import, and needed here alone. No pyplot: nothing is shared between drawings.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    # Text stays text, and is never read as a formula; ids do not depend on chance.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "text.parse_math": False}):
        figure = Figure(figsize=(5.2, 2.3))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.11, 0.15, 0.87, 0.81))
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_RULE)
        axes.grid(axis="y", color=_RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_MUTED, labelsize=11, length=0)
        positions = range(len(trend))
        for values, colour, style in zip(series, (_LINE, _LINE_2), ("-", (0, (3, 1.5))), strict=False):
            axes.plot(positions, [_nan(value) for value in values], color=colour, linewidth=1.8, linestyle=style)
            hollow = [at for at, day in enumerate(trend) if day.state == "incomplete" and values[at] is not None]
            axes.plot(
                hollow, [_nan(values[at]) for at in hollow], "o", ms=5, mec=colour, mew=1.4, mfc=_PAGE, clip_on=False
            )
            alone = [at for at in _alone(values) if at not in hollow]
            axes.plot(alone, [_nan(values[at]) for at in alone], "o", ms=4, color=colour, clip_on=False)
        known = [value for values in series for value in values if value is not None]
        # So that a change of one in a hundred does not look like a cliff.
        room = max((max(known) - min(known)) * 0.15, max(known) * 0.03, 0.5 if isinstance(known[0], int) else 0.005)
        axes.set_ylim(max(min(known) - room, 0), max(known) + room)
        axes.set_xlim(-0.3, len(trend) - 0.7)
        is_whole = isinstance(known[0], int)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=is_whole, steps=[1, 2, 5, 10]))
        if is_whole:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        marks = sorted({round(number * (len(trend) - 1) / 3) for number in range(4)})
        axes.set_xticks(marks, [f"{trend[at].date.day} {trend[at].date:%b}" for at in marks])
        for at, label in zip(marks, axes.get_xticklabels(), strict=True):
            label.set_horizontalalignment("left" if at == 0 else "right" if at == marks[-1] else "center")
        drawing = io.BytesIO()
        figure.savefig(drawing, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(drawing.getvalue(), key, title, " ".join(_told(title, trend, values) for values in series[:1]))


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _alone(values: Sequence[float | None]) -> Iterator[int]:
    """Positions of values that no line reaches: those without a neighbour."""
    padded = [None, *values, None]
    for at, value in enumerate(values):
        if value is not None and padded[at] is None and padded[at + 2] is None:
            yield at


def _inline(drawing: bytes, key: str, title: str, description: str) -> Markup:
    """A drawing as an element of a page: named, described, in the page's colours, its ids apart from others'."""
    root = ET.fromstring(drawing)  # noqa: S314  (drawn by us)

    def renamed(reference: re.Match[str]) -> str:
        return _COLOURS.get(reference[0]) or f"#{key}-{reference[1]}"

    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            text = f"{key}-{value}" if name == "id" else re.sub(r"#([\w-]+)", renamed, value)
            element.set(name.removeprefix(_XLINK), text)
    for name in ("width", "height", "version"):
        del root.attrib[name]
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-desc")
    for at, (name, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(name, id=f"{key}-{name}")
        element.text = text
        root.insert(at, element)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704  (the serialiser escapes)
