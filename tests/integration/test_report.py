"""The report in a real browser: figures, layout, and that no value is ever markup."""

import datetime as dt
import hashlib
import os
import re
import shutil
from functools import cache
from itertools import pairwise

import pytest
from published_days import PROJECT_ID, publish_snapshot, registry_and_bill

from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake, Partition
from pipelines.report import data as report_data
from pipelines.report.page import render_report, write_report
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MEGABYTE = 1_000_000
GIB = 1024**3
SCRIPT = "<script>document.title = 'owned'</script>"
BREAKOUT = '"><img src=x onerror="document.title=\'owned\'">'
# It would be a formula when drawn, and is longer than any column.
WIDE = "$\\frac{1}{0}$" + "w" * 300

PRICE_BOOK = """
currency = "EUR"
[[price]]
valid_from = 2026-01-01
per_gb_month = 3
"""
SUPPRESSIONS = """
[[suppression]]
rule = "owner_missing"
id = "plain"
reason = "a <b>bold</b> exception"
until = 2026-12-31
"""
DESCRIBED = """-- id: described
-- title: Has a description & <i>more</i>
-- severity: critical
-- why: Because </details></main>.
-- do: Nothing.
SELECT id, description, name AS "<u>name</u>" FROM current_images WHERE description IS NOT NULL
"""
BROKEN = """-- id: broken
-- title: Cannot be
-- severity: low
-- why: It is.
-- do: Mend it.
SELECT id, no_such_column FROM current_images
"""


def partition_of(date):
    return Partition(dt.date.fromisoformat(date), "default")


def image(id_, gib, **columns):
    size = {"size": gib * 1024**2, "size_bytes": gib * GIB}
    return {"id": id_, "name": id_, "type": "DEDICATED", "visibility": "PRIVATE", "namespace": "ours"} | size | columns


def answers(*images, **others):
    outcomes = {row["id"]: "ok" for row in images} | others
    return [{"id": id_, "outcome": outcome} for id_, outcome in outcomes.items()]


def registered(*images, **owners):
    return [{"id": row["id"], "owner": owners.get(row["id"], "ann"), "cost_center": "CC-1"} for row in images]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """20 November: first, complete; 21: incomplete; 22: missing; 23: complete, with changes and hostile texts."""
    root = tmp_path_factory.mktemp("report")
    for name, text in {"prices.toml": PRICE_BOOK, "accepted.toml": SUPPRESSIONS}.items():
        (root / name).write_text(text)
    (root / "rules").mkdir()
    (root / "rules" / "described.sql").write_text(DESCRIBED)
    (root / "rules" / "broken.sql").write_text(BROKEN)
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("IMAGE_SNAPSHOTS_")]:
            environment.delenv(name)
        settings = Settings(
            lake=str(root / "lake"),
            price_book=root / "prices.toml",
            suppressions=root / "accepted.toml",
            audit_rules=root / "rules",
        )

    def publish(date, images, **tables):
        day = SnapshotRun(partition_of(date), "run-1", settings)
        publish_snapshot(day, images=[row | {"content_hash": str(row)} for row in images], **tables)
        derive_days(day)

    plain, going, opened = image("plain", 10), image("going", 40), image("opened", 50, name=WIDE, namespace=BREAKOUT)
    before = (plain, going, opened)
    publish("2026-11-20", images=before, responses=answers(*before), inventory=registered(*before))
    publish(
        "2026-11-21",
        images=[plain, going],
        responses=answers(plain, going, opened="failed"),
        inventory=registered(*before),
        listed=[],
        references=[],
    )
    hostile = image("hostile", 80, name=SCRIPT, namespace=BREAKOUT, description=BREAKOUT)
    today = (plain | image("plain", 30), opened | {"visibility": "PUBLIC", "description": ""}, hostile)
    inventory = registered(*today, plain=None, hostile=SCRIPT) + registered(going)
    publish(
        "2026-11-23",
        images=today,
        responses=answers(*today, going="not_found"),
        inventory=inventory,
        listed=[
            {"id": row["id"], "name": row["name"], "size": row["size"]}
            for row in (*today, image("wild", 1, name="=1+1"))
        ],
        references=[{"resource_id": "n1", "image_id": "hostile", "strength": "running"}],
    )
    return Lake(settings.lake)


@pytest.fixture(scope="module")
def path_of(lake, tmp_path_factory):
    """Path of a day's report, written once."""
    directory = tmp_path_factory.mktemp("reports")
    return cache(lambda date: write_report(lake, partition_of(date), directory / f"{date}.html"))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium on the PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser):
    """Open a report; fails at the end if the page wrote to the console or made a request."""
    noise, pages = [], []

    def open_(path, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("dialog", lambda dialog: noise.append(dialog.message))
        page.on("request", lambda request: noise.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield open_
    for page in pages:
        page.close()
    assert noise == []


def words(page, selector="body"):
    """Text of a part of the page, including folded parts, without line breaks and with plain blanks and signs."""
    text = " ".join(page.locator(selector).first.evaluate("element => element.textContent").split())
    return text.replace("\u2212", "-")


def unfold(page):
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")


def rows_of_table(page, caption):
    """Text of a table's rows, without the heading."""
    unfold(page)
    rows = page.get_by_role("table", name=caption).get_by_role("row").all()
    return [" ".join(row.inner_text().split()) for row in rows[1:]]


def test_figures_match_the_lake(lake, path_of, opened):
    page = opened(path_of("2026-11-23"))
    assert page.title() == "Sample data: Image report, project default, 2026-11-23"
    assert words(page, "h1") == "Project default, 23 November 2026"
    # 80 + 50 + 30 GiB at 3 EUR a month of 30 days; 100 GiB before.
    figures = [" ".join(div.inner_text().split()) for div in page.locator(".figures > div").all()]
    shared = "171,798,691,840 bytes. Shared layers count for each image."
    assert figures == [
        "Images 3 no change since 2026-11-20 1 added, 1 removed.",
        f"Stored size 160.00 GiB +60.00 GiB since 2026-11-20 {shared}",
        "Estimated cost EUR 16.00 +6.00 since 2026-11-20 For one day; an estimate, not a bill.",
        "Open findings 7 +7 since 2026-11-20 7 new, 0 resolved, 1 suppressed.",
    ]
    counts = [" ".join(div.inner_text().split()) for div in page.locator(".severities > div").all()]
    assert counts == ["Critical 2 +2", "High 2 +2", "Medium 2 +2", "Low 1 +1", "Info 0 no change"]
    assert words(page, ".verdict") == (
        "Incomplete audit. 7 findings are open: 2 critical, 2 high, 2 medium, 1 low. 7 are new since 20 November 2026, "
        "none were resolved. 1 audit rule could not be run, so there may be more findings."
    )
    notes = words(page, ".notes")
    assert "built-in sandbox" in words(page, ".sample")
    assert "3 days before this one" in notes
    assert "not read" not in notes

    changes = words(page, "section[aria-labelledby=changes]")
    assert "Access 1 change" in changes
    assert "visibility of 1 image." in changes
    assert "PRIVATE → PUBLIC" in changes
    assert "1 image added; 1 image removed." in changes
    assert rows_of_table(page, "Size and cost by owner") == [
        f"{SCRIPT} 1 80.00 GiB 50.0 % 8.00",
        "ann 1 50.00 GiB 31.2 % 5.00",
        "no owner stated 1 30.00 GiB 18.8 % 3.00",
        "All 3 160.00 GiB 16.00",
    ]
    rules = words(page, "section[aria-labelledby=rules]")
    shipped = len(list((ROOT / "sql" / "audit").glob("*.sql")))
    assert f"{shipped + 1} rules were run. The following could not be run" in rules
    assert 'Referenced column "no_such_column" not found' in rules
    assert rows_of_table(page, "Outcomes of the day")[:3] == [
        "ok 3 The API described the image.",
        "deleted 0 The API says that the image was deleted.",
        "not_found 1 The API knows no such image.",
    ]
    manifest = lake.manifest(partition_of("2026-11-23"))
    facts = words(page, ".facts")
    assert f"Manifest SHA-256{hashlib.sha256(manifest.read_bytes()).hexdigest()}" in facts.replace(
        "SHA-256 ", "SHA-256"
    )
    assert "127.0.0.1 (sandbox)" in facts
    assert "a.csv" in facts


def test_values_are_never_markup(path_of, opened):
    page = opened(path_of("2026-11-23"))
    unfold(page)
    assert page.locator("script, img, iframe, object, embed, link, b, u, [onerror]").count() == 0
    assert page.title() == "Sample data: Image report, project default, 2026-11-23"
    for text in (SCRIPT, BREAKOUT, "a <b>bold</b> exception", "<u>name</u>", "& <i>more</i>", "</details></main>"):
        assert page.get_by_text(text).first.is_visible(), text
    assert page.locator("main section[aria-labelledby=provenance]").count() == 1
    # A spreadsheet that opens the page would run a cell that begins with it.
    assert page.get_by_text("'=1+1").first.is_visible()


def test_page_makes_no_request_even_with_injected_markup(path_of, browser):
    page = browser.new_page()
    page.goto(path_of("2026-11-23").as_uri())
    for markup, directive in {
        "<img src='http://127.0.0.1:1/x'>": "img-src",
        "<button onclick='document.title = 1'>": "script-src-attr",
        "<iframe src='http://127.0.0.1:1/x'></iframe>": "frame-src",
    }.items():
        refused = page.evaluate(
            """markup => new Promise(resolve => {
                document.addEventListener("securitypolicyviolation", e => resolve(e.violatedDirective), { once: true });
                document.body.insertAdjacentHTML("beforeend", markup);
                document.querySelector("button")?.click();
            })""",
            markup,
        )
        assert refused == directive
    page.close()


# For each visible text whose contrast with its background is below WCAG's limit (AA): that contrast.
LOW_CONTRAST = """() => {
    const channels = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
    const luminance = ([red, green, blue]) => {
        const [r, g, b] = [red, green, blue].map(value => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = channels(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
        }
        throw new Error("no background");
    };
    const found = [];
    let texts = 0;
    for (const element of document.body.querySelectorAll("*")) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!own || ["title", "desc"].includes(element.tagName)) continue;
        texts += 1;
        const style = getComputedStyle(element);
        const colour = channels(element.tagName === "text" ? style.fill : style.color);
        const [dark, light] = [luminance(colour), luminance(behind(element))].sort((a, b) => a - b);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < 4.5) found.push([element.tagName, element.textContent.slice(0, 40), contrast]);
    }
    return [texts, found];
}"""


@pytest.mark.parametrize("width", [390, 1440])
def test_page_is_readable_on_every_screen(path_of, opened, width):
    check_readable(opened(path_of("2026-11-23"), viewport={"width": width, "height": 900}), width)


def check_readable(page, width):
    """Nothing is wider than the screen or the paper, and all text stands out from its background."""
    unfold(page)
    for scheme, media, background in (
        ("light", "screen", "rgb(255, 255, 255)"),
        ("dark", "screen", "rgb(20, 24, 29)"),
        ("light", "print", "rgb(255, 255, 255)"),
        ("dark", "print", "rgb(255, 255, 255)"),
    ):
        page.emulate_media(media=media, color_scheme=scheme)
        if media == "print":
            # What the margins leave of A4, in CSS pixels.
            page.set_viewport_size({"width": 688, "height": 900})
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
        scroll_width, inner_width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert scroll_width <= inner_width == (688 if media == "print" else width)
        texts, low = page.evaluate(LOW_CONTRAST)
        assert texts > 200
        assert low == []


@pytest.fixture(scope="module")
def billed(tmp_path_factory):
    """Path of the report of a day with a registry and the bill of the day before."""
    root = tmp_path_factory.mktemp("billed")
    (root / "prices.toml").write_text(PRICE_BOOK)
    settings = Settings(lake=str(root / "lake"), price_book=root / "prices.toml")
    images = [image(name, 10, swr_path=f"swr.example/team/{name}:v1", content_hash="1") for name in ("plain", "second")]
    for date in ("2026-11-22", "2026-11-23"):
        day = SnapshotRun(partition_of(date), "run-1", settings)
        tables = registry_and_bill(date, "team/nobody:v1", "team/plain:v1", "team/second:v1")
        inventory = registered(*images, second="bob")
        publish_snapshot(day, images=images, responses=answers(*images), inventory=inventory, **tables)
        derive_days(day)
    return write_report(Lake(settings.lake), partition_of("2026-11-23"), root / "report.html")


@pytest.mark.parametrize("width", [390, 1440])
def test_estimate_bill_and_difference_stand_side_by_side(billed, opened, width):
    page = opened(billed, viewport={"width": width, "height": 900})
    figures = [" ".join(div.inner_text().split()) for div in page.locator(".figures > div").all()]
    # 20 GiB at 3 EUR a month of 30 days, and a bill of 3 EUR.
    estimated, charged = figures[2:4]
    assert estimated == "Estimated cost EUR 2.00 no change since 2026-11-22 For one day; an estimate, not a bill."
    assert charged == (
        "Registry billed EUR 3.00 +1.00 beside the estimate of 2.00 For 2026-11-22, the newest bill that is known, and "
        "the estimate of that day. ModelArts billed 0.00."
    )
    # Each tag has 200 bytes of its own and a third of 100 that all three share.
    rows = rows_of_table(page, "Bill of 2026-11-22 by owner")
    amounts = {
        "ann": ("1.00", "1.00", "0.00", "0.00", "1.00"),
        "bob": ("1.00", "1.00", "0.00", "0.00", "1.00"),
        "Not allocated: tags that no image registers": ("0.00", "1.00", "+1.00", "0.00", "1.00"),
        "All": ("2.00", "3.00", "+1.00", "0.00", "3.00"),
    }
    assert rows == [" ".join([name, *row]) for name, row in amounts.items()]
    assert rows_of_table(page, "Estimate and bill of each billed day") == [
        "2026-11-22 2.00 3.00 +1.00 0.00 3.00 1.00",
        "2026-11-21 not known 3.00 not known 0.00 3.00 3.00",
    ]
    table = page.get_by_role("table", name="Estimate and bill of each billed day")
    boxes = [cell.bounding_box() for cell in table.locator("tbody td").all()[:3]]
    assert len({box["y"] for box in boxes}) == 1
    assert all(left["x"] + left["width"] <= right["x"] + 1 for left, right in pairwise(boxes))
    assert boxes[-1]["x"] + boxes[-1]["width"] <= width
    shown = table.locator("tbody td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert shown == ('"Estimate"' if width == 390 else "none")
    check_readable(page, width)


def test_print_shows_the_unfolded_parts(path_of, opened):
    page = opened(path_of("2026-11-23"))
    page.emulate_media(media="print")
    reason = page.get_by_text("a <b>bold</b> exception")
    assert not reason.is_visible()
    unfold(page)
    assert reason.is_visible()
    assert not page.get_by_role("navigation").is_visible()


def test_page_is_accessible_to_screen_readers(path_of, opened):
    page = opened(path_of("2026-11-23"))
    assert page.evaluate("document.documentElement.lang") == "en"
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1, landmark
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(heading => Number(heading.tagName[1]))")
    assert levels[:3] == [1, 2, 2]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tables = page.locator("table").count()
    assert tables > 10
    assert page.locator("table > caption:not(:empty)").count() == tables
    assert page.locator("th:not([scope])").count() == 0
    ids = page.locator("[id]").evaluate_all("all => all.map(element => element.id)")
    assert len(ids) == len(set(ids))
    references = page.locator("[aria-labelledby]").evaluate_all(
        "all => all.flatMap(element => element.getAttribute('aria-labelledby').split(' '))"
    )
    assert set(references) <= set(ids)
    assert set(page.locator("a").evaluate_all("all => all.map(a => a.hash.slice(1))")) <= set(ids)


def test_charts_are_drawings_with_descriptions(path_of, opened):
    page = opened(path_of("2026-11-23"))
    named = {}
    for chart in page.locator("figure svg").all():
        assert chart.get_attribute("role") == "img"
        named[chart.locator("> title").text_content()] = chart.locator("> desc").text_content()
    every_day = " The table of figures below has every day."
    assert named == {
        "Images": "Images: 3 on 2026-11-20, 3 on 2026-11-23; lowest 3, highest 3." + every_day,
        "Stored size in GiB": "Stored size in GiB: 100.00 on 2026-11-20, 160.00 on 2026-11-23; lowest 100.00, "
        "highest 160.00." + every_day,
        "Open findings": "Open findings: 0 on 2026-11-20, 7 on 2026-11-23; lowest 0, highest 7." + every_day,
        "Estimated cost of a day in EUR": "Estimated cost of a day in EUR: 10.00 on 2026-11-20, 16.00 on 2026-11-23; "
        "lowest 10.00, highest 16.00." + every_day,
    }
    assert page.locator("figure svg text").first.text_content() == "20 Nov"
    assert rows_of_table(page, "Figures of each day") == [
        "2026-11-23 complete 3 160.00 GiB 7 4 16.00",
        "2026-11-22 no snapshot",
        "2026-11-21 incomplete 3 100.00 GiB 0 0 10.00",
        "2026-11-20 complete 3 100.00 GiB 0 0 10.00",
    ]


def test_incomplete_day_is_marked_at_the_top(path_of, opened):
    page = opened(path_of("2026-11-21"))
    assert words(page, ".verdict").startswith("Incomplete day. 1 of 3 image ids got no response.")
    assert "Images without a response are shown in their last known state" in words(page, ".notes")
    assert "Not compared" in words(page, "section[aria-labelledby=changes]")
    ids = page.get_by_role("table", name="Ids without a response")
    assert " ".join(ids.inner_text().split()).endswith("opened none stated")


def test_first_day_shows_what_was_not_read(path_of, opened):
    page = opened(path_of("2026-11-20"))
    notes = words(page, ".notes")
    assert "There is no complete day before this one, so no changes are shown." in notes
    assert "The image list was not read" in notes
    assert "Usage was not read" in notes
    text = words(page)
    assert "No open findings." in text
    assert "No suppressed findings." in text
    assert "A trend needs two days; this is the first." in text
    assert "This day was not observed, so it is not known what is unused." in text
    assert "There is nothing to compare with." in text
    assert "The registry was not read, so it is not known what it stores." in text
    assert "No bill was read, so it is not known what is billed." in text
    assert page.get_by_role("table", name="bill").count() == 0


def test_report_is_published_and_reproducible(lake):
    path = write_report(lake, partition_of("2026-11-23"))
    assert path == lake.root / "reports" / "dt=2026-11-23" / "project=default" / "report.html"
    assert path.read_text() == render_report(lake, partition_of("2026-11-23"))
    assert "<!DOCTYPE html>" in path.read_text()[:20]


def test_omissions_are_stated(lake, opened, tmp_path, monkeypatch):
    monkeypatch.setitem(report_data._LIMITS, "shown_findings", 7)
    page = opened(write_report(lake, partition_of("2026-11-23"), tmp_path / "report.html"))
    # Of eight, a rule with two drops its second.
    assert page.get_by_text("1 of 2 are shown").count() == 1
    assert "audit_findings/dt=2026-11-23/project=default/audit_findings.parquet" in words(page)


def test_page_with_five_thousand_findings_loads_fast(opened, tmp_path):
    day = SnapshotRun(partition_of("2026-11-23"), "run-1", Settings(lake=str(tmp_path / "lake")))
    images = [
        image(f"0f3c2a7e-1111-4222-8333-{number:012}", 1, name=f"training-image-{number}", visibility="PUBLIC")
        | {"description": ""}
        for number in range(2500)
    ]
    publish_snapshot(day, images=images, responses=answers(*images), inventory=registered(*images))
    derive_days(day)
    path = write_report(day.lake, day.partition)
    assert path.stat().st_size < 4 * MEGABYTE
    page = opened(path, viewport={"width": 390, "height": 900})
    page.set_default_timeout(20_000)
    assert page.locator("tbody tr[role=row]").count() == 5000
    assert page.get_by_text("training-image-0", exact=True).first.is_visible()
    last = page.get_by_text("training-image-2499", exact=True).first
    assert not last.is_visible()
    # On paper a few pages, whatever the number of findings.
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) <= 6
    page.get_by_text("2,488 more").first.click()
    assert last.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_day_that_cannot_be_reported_is_refused(lake, tmp_path):
    with pytest.raises(ConfigurationError, match="Nothing is published for 2026-11-22 of project default"):
        write_report(lake, partition_of("2026-11-22"))
    day = SnapshotRun(partition_of("2026-11-23"), "run-1", Settings(lake=str(tmp_path / "lake")))
    publish_snapshot(day)
    with pytest.raises(ConfigurationError, match="rebuild --date 2026-11-23 --project default"):
        write_report(day.lake, day.partition)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Name another file"):
        write_report(lake, partition_of("2026-11-23"), tmp_path / "file" / "report.html")
    assert PROJECT_ID in render_report(lake, partition_of("2026-11-23"))
