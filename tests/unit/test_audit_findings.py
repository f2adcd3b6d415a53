"""The life of a finding from day to day, suppressions, and the settings of the audit."""

import datetime as dt
import hashlib
from dataclasses import replace

import pytest
from audited_days import HEADER, derive, findings_of, write_rule
from published_days import day_of, publish_snapshot, published_rows, write_history

from pipelines.derive.audit import Suppression, read_suppressions
from pipelines.errors import ConfigurationError
from pipelines.settings import Settings
from pipelines.tables import (
    AUDIT_FINDINGS,
    AUDIT_RULES,
)


class Life:
    """Days of a project with its own rule, which finds images with a bad name."""

    def __init__(self, directory):
        self.rules = directory / "rules"
        self.suppressions = None
        write_rule(self.rules, "named")

    def take(self, number, names=None, *, history=(), outcomes=None, **derived):
        """Publish and audit the day 2026-11-<number>; `names` of the described images, by id."""
        names = names or {}
        outcomes = dict.fromkeys(names, "ok") | (outcomes or {})
        day = self.day(number)
        publish_snapshot(
            day,
            inventory=[{"id": id_, "owner": "o", "cost_center": "cc"} for id_ in outcomes],
            responses=[{"id": id_, "outcome": outcome} for id_, outcome in outcomes.items()],
            images=[{"id": id_, "name": name, "namespace": "ns"} for id_, name in names.items()],
            **derived,
        )
        if history:
            write_history(day, history)
        return derive(day)

    def day(self, number):
        settings = Settings(lake="lake", audit_rules=self.rules, suppressions=self.suppressions)
        return replace(day_of(f"2026-11-{number}"), settings=settings)

    def seen(self, number):
        """State, first day and days open of each finding of the rule, by image."""
        found = findings_of(self.day(number), "named")
        return {id_: (row["state"], row["first_seen"].day, row["days_open"]) for id_, row in found.items()}


@pytest.fixture
def life(tmp_path):
    return Life(tmp_path)


def test_finding_is_new_then_open_then_resolved_then_new_again(life):
    assert life.take(10, {"a": "bad", "b": "bad"}).new == 2
    assert life.seen(10) == {"a": ("new", 10, 0), "b": ("new", 10, 0)}
    assert life.take(11, {"a": "bad-still", "b": "good"}).resolved == 1
    assert life.seen(11) == {"a": ("open", 10, 1), "b": ("resolved", 10, 1)}
    found = findings_of(life.day(11), "named")
    assert derive(life.day(11)).resolved == 1
    assert findings_of(life.day(11), "named") == found
    assert (found["a"]["evidence"], found["a"]["name"]) == ('{"name":"bad-still"}', "bad-still")
    assert (found["b"]["evidence"], found["b"]["name"]) == ('{"name":"bad"}', "good")
    result = life.take(14, {"a": "bad", "b": "bad"})
    assert life.seen(14) == {"a": ("open", 10, 4), "b": ("new", 14, 0)}
    assert (result.new, result.resolved, result.open_by_severity["low"]) == (1, 0, 2)
    ids = [findings_of(life.day(number), "named")["b"]["finding_id"] for number in (10, 11, 14)]
    assert ids == [hashlib.sha256(b"p1/named/b").hexdigest()[:32]] * 3
    life.take(15, {"a": "good", "b": "bad"})
    life.take(16, {"a": "good", "b": "bad"})
    assert life.seen(16) == {"b": ("open", 14, 2)}


def test_incomplete_day_resolves_nothing(life):
    life.take(10, {"a": "bad", "b": "bad"})
    life.take(11, {"a": "good", "c": "bad"}, outcomes={"b": "failed"})
    assert life.seen(11) == {"a": ("open", 10, 1), "b": ("open", 10, 1), "c": ("new", 11, 0)}
    assert findings_of(life.day(11), "named")["a"]["evidence"] == '{"name":"bad"}'
    # A finding of an incomplete day exists, and its age continues.
    life.take(12, {"a": "good", "b": "bad", "c": "bad"})
    assert life.seen(12) == {"a": ("resolved", 10, 2), "b": ("open", 10, 2), "c": ("open", 11, 1)}


def test_broken_rule_resolves_nothing_but_removed_rule_does(life):
    life.take(10, {"a": "bad"})
    write_rule(life.rules, "named", "SELECT id, nope FROM current_images")
    result = life.take(11, {"a": "good"})
    assert result.rule_errors.keys() == {"named"}
    assert life.seen(11) == {"a": ("open", 10, 1)}
    assert findings_of(life.day(11), "named")["a"]["title"] == "Named badly"
    (life.rules / "named.sql").write_text("SELECT 1")
    life.take(12, {"a": "good"})
    assert life.seen(12) == {"a": ("open", 10, 2)}
    (life.rules / "named.sql").unlink()
    life.take(13, {"a": "bad"})
    assert life.seen(13) == {"a": ("resolved", 10, 3)}


def test_image_without_response_keeps_its_findings(life):
    write_rule(life.rules, "named", "SELECT id, name FROM images WHERE name LIKE 'bad%'")
    life.take(10, {"a": "bad", "b": "bad"})
    history = [
        {"id": "a", "valid_from": dt.date(2026, 11, 10), "name": "bad"},
        {"id": "b", "valid_from": dt.date(2026, 11, 10), "valid_to": dt.date(2026, 11, 11), "name": "bad"},
    ]
    life.take(11, history=history, outcomes={"a": "forbidden", "b": "not_found"})
    assert life.seen(11) == {"a": ("open", 10, 1), "b": ("resolved", 10, 1)}
    found = findings_of(life.day(11), "named")
    assert (found["a"]["name"], found["a"]["evidence"]) == ("bad", '{"name":"bad"}')
    life.take(12, {"a": "good"})
    assert life.seen(12) == {"a": ("resolved", 10, 2)}


def test_rule_resolves_nothing_while_its_input_is_not_read(life):
    for need in ("list", "usage"):
        write_rule(life.rules, f"needs_{need}", header=HEADER + f"-- needs: {need}\n")
    write_rule(life.rules, "needs_both", header=HEADER + "-- needs: list, usage\n")

    def states(number):
        rows = published_rows(life.day(number), AUDIT_FINDINGS)
        return {(row["rule"], row["id"]): row["state"] for row in rows}

    life.take(10, {"a": "bad"}, listed=[], references=[])
    assert life.take(11, {"a": "good", "b": "bad"}, references=[]).rule_errors == {}
    assert states(11) == {
        ("named", "a"): "resolved",
        ("named", "b"): "new",
        ("needs_list", "a"): "open",
        ("needs_list", "b"): "new",
        ("needs_usage", "a"): "resolved",
        ("needs_usage", "b"): "new",
        ("needs_both", "a"): "open",
        ("needs_both", "b"): "new",
    }
    life.take(12, {"a": "good", "b": "good"}, listed=[])
    assert states(12) == {
        ("named", "b"): "resolved",
        ("needs_list", "a"): "resolved",
        ("needs_list", "b"): "resolved",
        ("needs_usage", "b"): "open",
        ("needs_both", "a"): "open",
        ("needs_both", "b"): "open",
    }


# --- suppressions ---------------------------------------------------------------------------------------------------


def test_suppressed_finding_stays_marked_until_the_suppression_expires(life, tmp_path):
    life.suppressions = tmp_path / "suppressions.toml"
    life.suppressions.write_text("""
        [[suppression]]
        rule = "named"
        id = "A"
        reason = "agreed"
        until = 2026-11-11

        [[suppression]]
        rule = "named"
        id = "a"
        reason = "of before"
        until = 2026-11-10

        [[suppression]]
        rule = "build_failed"
        namespace = "ns"
        reason = "of another rule"
        until = 2099-12-31

        [[suppression]]
        rule = "named"
        namespace = "elsewhere"
        reason = "of another namespace"
        until = 2099-12-31
    """)
    result = life.take(10, {"a": "bad", "b": "bad"})
    assert (result.new, result.suppressed, result.open_by_severity["low"]) == (1, 1, 1)
    result = life.take(11, {"a": "bad", "b": "bad"})
    assert (result.new, result.suppressed, result.open_by_severity["low"]) == (0, 1, 1)
    found = findings_of(life.day(11), "named")
    assert (found["a"]["state"], found["a"]["suppressed_until"]) == ("open", dt.date(2026, 11, 11))
    assert found["a"]["suppression_reason"] == "agreed"
    assert (found["b"]["suppressed_until"], found["b"]["suppression_reason"]) == (None, None)
    rules = {row["rule"]: row["findings"] for row in published_rows(life.day(11), AUDIT_RULES)}
    assert rules["named"] == 2
    result = life.take(12, {"a": "bad", "b": "bad"})
    assert (result.new, result.suppressed, result.open_by_severity["low"]) == (0, 0, 2)
    assert life.seen(12) == {"a": ("open", 10, 2), "b": ("open", 10, 2)}
    life.suppressions.write_text(
        '[[suppression]]\nrule = "named"\nnamespace = "ns"\nreason = "sandboxes"\nuntil = 2026-12-31\n'
    )
    assert derive(life.day(12)).suppressed == 2


@pytest.mark.parametrize(
    ("of_image", "of_namespace", "shown"),
    [
        ([(20, "image")], [(21, "namespace")], (21, "namespace")),
        ([(21, "image")], [(20, "namespace")], (21, "image")),
        ([(20, "b")], [(20, "a")], (20, "a")),
        ([(20, "a")], [(20, "b")], (20, "a")),
        ([(20, "b"), (20, "a"), (9, "over")], [], (20, "a")),
        ([], [(19, "a"), (20, "b"), (9, "over")], (20, "b")),
        ([(9, "over")], [(9, "over")], None),
        ([(9, "over")], [(20, "namespace")], (20, "namespace")),
        ([(20, "image")], [(9, "over")], (20, "image")),
    ],
)
def test_of_several_suppressions_the_one_that_ends_last_is_shown(life, tmp_path, of_image, of_namespace, shown):
    entries = [*(("id", "a", *entry) for entry in of_image), *(("namespace", "ns", *entry) for entry in of_namespace)]
    life.suppressions = tmp_path / "suppressions.toml"
    life.suppressions.write_text(
        "\n".join(
            f'[[suppression]]\nrule = "named"\n{kind} = "{target}"\nreason = "{reason}"\nuntil = 2026-11-{day:02}\n'
            for kind, target, day, reason in entries
        )
    )
    result = life.take(10, {"a": "bad"})
    (finding,) = findings_of(life.day(10), "named").values()
    until = finding["suppressed_until"]
    assert (None if until is None else (until.day, finding["suppression_reason"])) == shown
    assert result.suppressed == (0 if shown is None else 1)


def test_image_that_is_not_registered_lacks_no_owner(life):
    """On an incomplete day the last known state is shown of images that the inventory lacks, too."""
    history = [{"id": id_, "name": id_, "valid_from": dt.date(2026, 11, 10)} for id_ in ("asked", "not-asked")]
    life.take(10, {"asked": "x", "not-asked": "x"})
    publish_snapshot(
        life.day(11),
        inventory=[{"id": "asked"}, {"id": "described"}],
        responses=[{"id": "asked", "outcome": "forbidden"}, {"id": "described", "outcome": "ok"}],
        images=[{"id": "described"}],
    )
    write_history(life.day(11), history)
    derive(life.day(11))
    assert findings_of(life.day(11), "owner_missing").keys() == {"asked", "described"}


GOOD_ENTRY = '[[suppression]]\nrule = "r"\nid = "a"\nreason = "agreed"\nuntil = 2026-12-31\n'


def test_suppressions_file_is_read(tmp_path):
    path = tmp_path / "suppressions.toml"
    path.write_text("")
    assert read_suppressions(path) == []
    path.write_text(GOOD_ENTRY)
    assert read_suppressions(path) == [Suppression(rule="r", id="a", reason="agreed", until=dt.date(2026, 12, 31))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD_ENTRY.replace('rule = "r"\n', ""), "Correct entry 2 of {path}: rule: Field required."),
        (
            GOOD_ENTRY.replace('"agreed"', '" "'),
            "Correct entry 2 of {path}: reason: String should have at least 1 char",
        ),
        (
            GOOD_ENTRY.replace("2026-12-31", '"2026-12-31"'),
            "Correct entry 2 of {path}: until: Input should be a valid date",
        ),
        (GOOD_ENTRY.replace('id = "a"\n', ""), "Correct entry 2 of {path}: state either id or namespace."),
        (GOOD_ENTRY + 'namespace = "n"\n', "Correct entry 2 of {path}: state either id or namespace."),
        (GOOD_ENTRY + 'untli = "n"\n', "Correct entry 2 of {path}: untli: Extra inputs are not permitted."),
        ('[other]\nrule = "r"\n', "Correct {path}: other: Extra inputs are not permitted."),
        ("[[suppression]\n", "{Path} is not TOML: "),
        ("a = " + "[" * 50_000, "{Path} is not TOML: too many brackets within brackets."),
    ],
)
def test_wrong_suppression_is_named_by_its_number(tmp_path, text, sentence):
    path = tmp_path / "suppressions.toml"
    path.write_text(GOOD_ENTRY + text)
    names = {"path": f"the suppressions file {path}", "Path": f"The suppressions file {path}"}
    with pytest.raises(ConfigurationError) as caught:
        read_suppressions(path)
    assert str(caught.value).startswith(sentence.format(**names))
    assert str(caught.value).count("\n") == 0


def test_malformed_or_unreadable_suppressions_are_refused(tmp_path):
    path = tmp_path / "suppressions.toml"
    path.write_text('[suppression]\nrule = "r"\n')
    with pytest.raises(ConfigurationError) as caught:
        read_suppressions(path)
    assert str(caught.value) == (f"Correct the suppressions file {path}: suppression: Input should be a valid list.")
    with pytest.raises(ConfigurationError) as caught:
        read_suppressions(tmp_path / "none.toml")
    assert str(caught.value) == (
        f"The suppressions file {tmp_path}/none.toml cannot be read (No such file or directory): correct "
        "IMAGE_SNAPSHOTS_SUPPRESSIONS."
    )


# --- settings -------------------------------------------------------------------------------------------------------


def test_audit_settings_are_read(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ALLOWED_NAMESPACES", '["ours", "base"]')
    monkeypatch.setenv("IMAGE_SNAPSHOTS_AUDIT_RULES", "rules")
    settings = Settings.load()
    assert settings.allowed_namespaces == {"ours", "base"}
    assert str(settings.audit_rules) == "rules"
    for value in ("[]", "ours"):
        monkeypatch.setenv("IMAGE_SNAPSHOTS_ALLOWED_NAMESPACES", value)
        with pytest.raises(ConfigurationError, match="The setting IMAGE_SNAPSHOTS_ALLOWED_NAMESPACES is wrong: "):
            Settings.load()
