"""Suppressions with missing targets are reported; others are not."""

import datetime as dt

import pytest
from published_days import day_of, publish_snapshot, write_history

from pipelines.derive.suppression_targets import suppression_warnings
from pipelines.settings import Settings

DAY = "2026-11-23"
KNOWN = "0f3c2a7e-1111-4222-8333-444455556666"
NOBODY = "0f3c2a7e-1111-4222-8333-000000000000"


@pytest.fixture
def warnings(tmp_path):
    day = day_of(DAY)
    publish_snapshot(day)
    write_history(day, [{"id": KNOWN, "valid_from": dt.date(2026, 11, 23), "namespace": "archive"}])

    def of(rule="older_than_a_year", target=f'id = "{KNOWN}"', until=DAY):
        file = tmp_path / "suppressions.toml"
        file.write_text(f'[[suppression]]\nrule = "{rule}"\n{target}\nreason = "r"\nuntil = {until}\n')
        settings = Settings(lake=str(day.lake.root), suppressions=file)
        return suppression_warnings(day.lake, settings, dt.date(2026, 11, 23))

    return of


def test_suppression_of_existing_targets_gives_no_warning(warnings):
    assert warnings() == []
    assert warnings(target=f'id = "{KNOWN.upper()}"') == []
    assert warnings(target='namespace = "archive"') == []


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"rule": "older_then_a_year"}, "there is no rule 'older_then_a_year'."),
        ({"target": f'id = "{NOBODY}"'}, f"the lake knows no image '{NOBODY}'."),
        ({"target": 'namespace = "Archive"'}, "the lake knows no image in a namespace 'Archive'."),
    ],
    ids=["rule", "image", "namespace"],
)
def test_suppression_of_a_missing_target_is_named(entry, named, warnings):
    (sentence,) = warnings(**entry)
    assert sentence.startswith("Entry 1 of the suppressions file ")
    assert sentence.endswith(named)


def test_missing_rule_and_image_are_both_named(warnings):
    assert len(warnings(rule="nothing", target=f'id = "{NOBODY}"')) == 2


def test_expired_suppression_gives_no_warning(warnings):
    assert warnings(rule="nothing", target=f'id = "{NOBODY}"', until="2026-11-22") == []
