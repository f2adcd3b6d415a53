"""The beginning of the report: gravest findings unfolded, notes on new findings, and consistent figures."""

import re

import pytest
from published_days import day_of, publish_snapshot

from pipelines.derive.days import derive_days
from pipelines.lake.derived_manifests import DerivedSummary
from pipelines.lake.manifests import ScopeFacts, SourceFacts
from pipelines.report.headline import AWAITED_DAYS, awaited, figures, notes
from pipelines.report.page import UNFOLDED_ROWS, _evidence, render_report
from pipelines.settings import ROOT

GIB = 1024**3


def image(number, **columns):
    size = {"size": 1024**2, "size_bytes": GIB}
    return (
        {"id": f"{number:08d}-0000-4000-8000-000000000000", "name": f"n{number}", "type": "DEDICATED"} | size | columns
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Many public images, which is grave, all without an owner, which is less grave."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("report"))
        images = [image(number, visibility="PUBLIC", content_hash="1") for number in range(UNFOLDED_ROWS + 3)]
        day = day_of("2026-11-23")
        publish_snapshot(
            day,
            images=images,
            responses=[{"id": row["id"], "outcome": "ok"} for row in images],
            inventory=[{"id": row["id"]} for row in images],
        )
        derive_days(day)
        return render_report(day.lake, day.partition)


def blocks(page, rule):
    """For each block of a rule: whether it is open, its title, and its rows."""
    (article,) = [text for text in page.split("<article")[1:] if rule in text.partition("</h4>")[0]]
    article = article.partition("</article>")[0]
    found = re.findall(r"<details( open)?>\s*<summary>(.*?)</summary>(.*?)</details>", article, re.DOTALL)
    return [(bool(is_open), title, text.count("<tr role")) for is_open, title, text in found]


def test_first_gravest_findings_are_unfolded_and_others_folded(page):
    severities = re.findall(r'<h3 id="severity-(\w+)"', page)
    assert severities[0] == "high"
    assert "medium" in severities
    total = UNFOLDED_ROWS + 3
    assert blocks(page, "Dedicated image is public") == [
        (True, f"The first {UNFOLDED_ROWS} of {total} images", UNFOLDED_ROWS),
        (False, "3 more", 3),
    ]
    assert blocks(page, "No owner or no cost centre") == [(False, f"{total} images", total)]


def test_only_gravest_findings_and_access_changes_are_unfolded(page):
    assert page.count("<details open") == page.partition('id="severity-medium"')[0].count("<details open")


def test_note_explains_findings_that_are_known_only_now():
    rules = [
        {"rule": "unused_30_days", "title": "Unused for 30 days", "new_findings": 171},
        {"rule": "unused_90_days", "title": "Unused for 90 days", "new_findings": 1},
        {"rule": "owner_missing", "title": "No owner", "new_findings": 5},
    ]
    ((_, sentence),) = awaited(rules, 30)
    assert sentence == (
        "Usage has been observed for 30 days as now, so “Unused for 30 days” can be decided for the first time. Its "
        "171 new findings did not arise on this day."
    )
    for observed in (31, 0):
        assert [*awaited(rules, observed)] == []
    assert [*awaited([rules[0] | {"new_findings": 0}], 30)] == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, None),
        (
            {"sources": {}},
            "So it is not known which images are in use; not known is not the same as unused.",
        ),
        (
            {
                "sources": {
                    "notebooks": SourceFacts(wanted=True, was_read=True),
                    "training_jobs": SourceFacts(wanted=True, was_read=True, partial="Those of this user alone."),
                    "services": SourceFacts(wanted=True, error="The services of 127.0.0.1 cannot be read (HTTP 403)."),
                    "workflows": SourceFacts(wanted=False),
                },
                "scope": ScopeFacts(workspaces=["0"], origin="assumed", outside=["7", "8"]),
            },
            (
                "Training jobs were read in part (Those of this user alone). Services were not read (The services of "
                "127.0.0.1 cannot be read (HTTP 403)). Nothing was read in the workspaces 7, 8. What is used "
                "counts; no image counts as unused by this day."
            ),
        ),
    ],
)
def test_what_was_not_looked_at_is_said_and_why(facts, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = publish_snapshot(day_of("2026-11-23"), listed=[], references=[], fetch_facts=facts)
    found = [sentence for heading, sentence in notes(manifest, summary()) if heading.startswith("Usage")]
    assert found == ([said] if said else [])


@pytest.mark.parametrize(
    ("evidence", "shown"),
    [
        (
            '{"size_bytes":5,"unused_days":30,"observed_days":31,"observed_kinds":"notebooks|models|services","workspaces":2}',
            [
                ("unused", "no notebook, model or service in 2 workspaces for 30 observed days"),
                ("size_bytes", "5"),
                ("observed_days", "31"),
            ],
        ),
        # A rule of a user's own.
        ('{"observed_kinds":"cats","workspaces":2,"unused_days":3}', [("observed_kinds", "cats"), ("workspaces", "2")]),
        ('{"observed_kinds":null,"workspaces":null}', [("observed_kinds", "none"), ("workspaces", "none")]),
    ],
)
def test_evidence_says_in_words_what_was_looked_at(evidence, shown):
    assert _evidence(evidence)[: len(shown)] == shown


def test_awaited_days_match_the_rules_sql():
    said = {}
    for path in (ROOT / "sql" / "audit").glob("*.sql"):
        if days := re.search(r"unused_days >= (\d+)", path.read_text()):
            said[path.stem] = int(days[1])
    assert said == AWAITED_DAYS


def summary(**facts):
    return DerivedSummary.model_validate(
        {
            "is_complete": True,
            "compared_with": "2026-11-22",
            "changes": {},
            "findings": {},
            "new_findings": 0,
            "resolved_findings": 0,
            "suppressed_findings": 0,
            "rule_errors": {},
            "images": 1,
            "total_bytes": 3 * GIB,
            "growth_bytes": GIB,
            "estimated_cost": 1.0,
            "currency": "EUR",
            "is_priced": True,
            "unpriced": 0,
            "reclaimable_bytes": None,
            "unmatched_references": None,
        }
        | facts
    )


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (1.003, "+below 0.01 since 2026-11-22"),
        (0.997, "\u2212below 0.01 since 2026-11-22"),
        (1.02, "+0.02 since 2026-11-22"),
        (1.0 + 1e-12, "no change since 2026-11-22"),
    ],
)
def test_small_cost_change_is_shown_as_a_change(cost, said):
    (change,) = [change for name, _, change, _ in figures(summary(estimated_cost=cost), summary()) if "cost" in name]
    assert change == said
